// A balloon that inflates during the migration: pages that held data on the source are given back on the destination,
// and from then on must read as zeros, whatever the source still has and whenever the agent was about to install it.
#pragma once
#include <atomic>

#include "machine.h"

namespace testvmm {

class Balloon {
public:
  Balloon(Machine &machine, uint64_t pages);
  /** Its thread runs as long as the program. */
  void start();
  std::string statsJson() const;

private:
  void run();

  Machine &machine_;
  const uint64_t pages_;
  std::atomic<uint64_t> removed_{0};
  std::atomic<bool> finished_{false};
};

} // namespace testvmm
