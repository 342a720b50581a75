// The destination VMM's userfaultfd: opened, its ranges registered, then handed over. The VMM keeps its own copy until
// `done`: if the last copy closed early, the kernel would unregister the ranges and the guest would read zeros.
#pragma once
#include "fd.h"
#include "memory.h"

namespace testvmm {

struct UffdOptions {
  bool minor = false;
  /** UFFD_USER_MODE_ONLY: faults that KVM takes in the kernel do not reach it. */
  bool userModeOnly = false;
  bool eventRemove = false;
  bool threadId = true;
};

/** Throws Failure naming the feature or permission that is missing. */
Fd registerMemory(const GuestMemory &memory, const UffdOptions &options);

} // namespace testvmm
