// The boot slot: guest memory at GPA 0 that is always present and never under userfaultfd. Code, page tables, a context
// page and a stack for each vCPU. Without KVM it is only the place of the contexts.
#pragma once
#include "config.h"
#include "fd.h"

namespace testvmm {

class BootSlot {
public:
  static constexpr uint64_t kBytes = 4ull << 20;
  static constexpr uint64_t kCode = 0x1000, kCodeEnd = 0x10000;
  static constexpr uint64_t kPml4 = 0x10000, kPdpt = 0x11000;
  static constexpr uint64_t kContexts = 0x20000; // one page each, kMaxVcpus + 1 of them
  static constexpr uint64_t kStacks = 0x80000;   // one page each
  static constexpr uint64_t kDirectories = 0x100000;

  BootSlot();
  /** Writes code and page tables for a new VM; a saved one brings its own code, at which its vCPUs stand. */
  void writeCode();
  void writePageTables(const Layout &layout);

  uint8_t *data() const { return memory_.data(); }
  GuestContext &context(uint64_t worker) const {
    return *reinterpret_cast<GuestContext *>(memory_.data() + contextGpa(worker));
  }
  static uint64_t contextGpa(uint64_t worker) { return kContexts + worker * kPageBytes; }
  static uint64_t stackTopGpa(uint64_t vcpu) { return kStacks + (vcpu + 1) * kPageBytes; }
  static uint64_t entryGpa();

private:
  Mapping memory_;
};

} // namespace testvmm
