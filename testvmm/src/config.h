// What a VM is made of, and where in its memory everything lies. Part of the state blob: both sides compute the same
// layout.
#pragma once
#include <array>
#include <string>

#include "guest_context.h"

namespace testvmm {

enum class MemoryKind : uint64_t { memfd = 0, anon = 1, guestMemfd = 2 };
const char *nameOf(MemoryKind kind);
const char *nameOf(Pattern pattern);

/** What becomes of a destination's stage-2 fault on a page that is not there. */
enum class Stage2 {
  /** KVM resolves it through the host's mapping, so it reaches the userfaultfd. */
  trap,
  /** The userfaultfd is for user mode only: KVM_RUN fails and says no address; the guest's context knows the page. */
  exit,
  /** KVM reads a bitmap and says the address; a kernel as `npm run lab` boots it. */
  userfault,
};

struct VmConfig {
  std::string name = "testvmm";
  MemoryKind memory = MemoryKind::memfd;
  bool kvm = true;
  /** The privilege level of the vCPUs. */
  uint64_t ring = 3;
  /** Host page size: 4096, or 2097152 (hugetlb memfd). The guest's workload always counts 4 KiB pages. */
  uint64_t pageBytes = kPageBytes;
  uint64_t ramBytes = 1ull << 30;
  uint64_t regions = 1;
  uint64_t vcpus = 1;
  uint64_t seed = 1;
  Pattern pattern = Pattern::random;
  Order order = Order::random;
  uint64_t workloadBytes = 640ull << 20;
  uint64_t ioPages = 4096;
  /** Pages a second of the I/O thread, and of each vCPU (0: as fast as it can). */
  uint64_t ioRate = 2000;
  uint64_t vcpuRate = 0;
  uint64_t heartbeatMs = 100;
  uint64_t zeroFillBytes = 0;
  uint64_t balloonBytes = 0;
};

inline constexpr uint64_t kZeroEvery = 16;
inline constexpr uint64_t kMaxVcpus = 62;

/** A run of pages, the same in every region. */
struct Area {
  uint64_t first = 0, pages = 0;
};

struct Layout {
  uint64_t regions = 0, regionBytes = 0, regionPages = 0;
  Area workload, io, balloon, zeroFill, untouched;

  /** Region i starts at 1 GiB and leaves a hole of 1 GiB after each. */
  uint64_t gpa(uint64_t region) const {
    const uint64_t gib = 1ull << 30;
    return gib + region * ((regionBytes + gib - 1) / gib * gib + gib);
  }
  /** Offset in the guest memory image, which has no holes. */
  uint64_t offset(uint64_t region, uint64_t page) const { return region * regionBytes + page * kPageBytes; }
};

/** Throws Failure naming the option that does not fit. */
Layout layoutOf(const VmConfig &config);

/** The context of worker `worker` (vCPUs first, the I/O thread last) before its first instruction. */
void initialiseContext(GuestContext &context, const VmConfig &config, const Layout &layout, uint64_t worker);

} // namespace testvmm
