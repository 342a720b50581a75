// The state blob: all of a paused VM but its RAM. Versioned, checksummed, refused as a whole if anything is off.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "config.h"
#include "kvm_vm.h"

namespace testvmm {

struct SavedWorker {
  long long lastHeartbeatNs = 0, longestGapNs = 0;
};

struct SavedState {
  VmConfig config;
  long long pausedAtNs = 0;
  /** vCPUs first, then the I/O thread if there is one. */
  std::vector<SavedWorker> workers;
  /** Empty without KVM. */
  std::vector<VcpuRegisters> registers;
  /** Pages of the boot slot that are not all zeros: index, content. */
  std::vector<std::pair<uint64_t, std::string>> bootPages;
  /** Indices of balloon pages that were given back. */
  std::vector<uint64_t> givenBack;
};

/** Writes to a sibling first and renames: a reader never sees half a blob. */
void writeState(const std::string &path, const SavedState &state);
/** Throws Failure naming the file and what is wrong with it. */
SavedState readState(const std::string &path);

} // namespace testvmm
