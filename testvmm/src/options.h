// The command line: one table of options, from which parsing, help and error messages follow.
#pragma once
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "config.h"
#include "firecracker.h"

namespace testvmm {

enum class Role { source, destination, snapshot };
enum class Handshake { pagewake, firecracker, secretFree };

struct Options {
  Role role = Role::source;
  VmConfig vm;
  std::string control;
  bool quietHeartbeats = false, testCommands = false;
  // What a destination overrides of the state it loads.
  std::optional<std::string> vmName;
  std::optional<MemoryKind> memory;
  bool noKvm = false;
  // Destination.
  bool registerMinor = false;
  Handshake handshake = Handshake::pagewake;
  FirecrackerForm form = FirecrackerForm::both;
  /** Comes back with the same memory if the agent goes away. */
  bool keepHandover = false;
  Stage2 stage2 = Stage2::trap;
  /** A bitmap is handed over although KVM does not read it. */
  bool bitmap = false;
  uint64_t balloonPages = 0;
  uint64_t readyTimeoutMs = 120'000;
  // Snapshot.
  std::string out;
  uint64_t passes = 2;
};

/** Whether a bitmap of stage-2 faults is handed over. */
inline bool hasBitmap(const Options &o) { return o.bitmap || o.stage2 == Stage2::userfault; }
/** Why these do not go with the memory that the VM will have, or nullptr. */
const char *whyNotWith(MemoryKind memory, const Options &options);

/** A bad command line: exit 2. */
class UsageError : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

std::string helpText();
/** Throws UsageError. */
Options parseOptions(const std::vector<std::string> &args);

} // namespace testvmm
