// What the control commands do, for either role.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "control.h"
#include "machine.h"
#include "options.h"

namespace testvmm {

class Destination;

class Commands {
public:
  explicit Commands(const Options &options);
  ~Commands();
  /** The source role's VM, already running. */
  void setMachine(std::shared_ptr<Machine> machine);
  Reply handle(const std::vector<std::string> &words);

private:
  std::string memory();
  Reply load(const std::string &statePath, const std::string &agentPath);
  Reply verify();
  std::shared_ptr<Machine> machine();

  const Options options_;
  /** Held by commands that change the VM; `stats`, `memory` and `quit` answer while one of them waits. */
  std::mutex operation_;
  std::mutex machineMutex_;
  std::shared_ptr<Machine> machine_;
  std::unique_ptr<Destination> destination_;
};

} // namespace testvmm
