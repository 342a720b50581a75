#include "config.h"

#include <algorithm>

#include "failure.h"
#include "pattern.h"

namespace testvmm {

const char *nameOf(MemoryKind kind) {
  switch (kind) {
  case MemoryKind::memfd: return "memfd";
  case MemoryKind::anon: return "anon";
  case MemoryKind::guestMemfd: return "guest_memfd";
  }
  return "unknown";
}

const char *nameOf(Pattern pattern) {
  switch (pattern) {
  case Pattern::random: return "random";
  case Pattern::text: return "text";
  case Pattern::zeroHeavy: return "zero-heavy";
  }
  return "unknown";
}

Layout layoutOf(const VmConfig &config) {
  if (config.regions < 1 || config.regions > kMaxRegions)
    fail("--regions: 1 to %d, not %lu", static_cast<int>(kMaxRegions), config.regions);
  if (config.vcpus < 1 || config.vcpus > kMaxVcpus)
    fail("--vcpus: 1 to %d, not %lu", static_cast<int>(kMaxVcpus), config.vcpus);
  if (config.ramBytes == 0 || config.ramBytes % (config.regions * config.pageBytes) != 0)
    fail("--ram: %lu bytes is not a multiple of regions x page size (%lu)", config.ramBytes,
         config.regions * config.pageBytes);

  Layout layout;
  layout.regions = config.regions;
  layout.regionBytes = config.ramBytes / config.regions;
  layout.regionPages = layout.regionBytes / kPageBytes;
  if (layout.gpa(config.regions) > (240ull << 30))
    fail("--ram: the regions end above 240 GiB of guest addresses; use less RAM or fewer regions");

  // An area that is wanted at all gets at least a page of each region.
  const auto perRegion = [&](uint64_t pages) { return pages == 0 ? 0 : std::max<uint64_t>(1, pages / config.regions); };
  uint64_t next = 0;
  const auto take = [&](uint64_t pages) {
    const Area area{next, perRegion(pages)};
    next += area.pages;
    return area;
  };
  layout.workload = take(config.workloadBytes / kPageBytes);
  layout.io = take(config.ioPages);
  layout.balloon = take(config.balloonBytes / kPageBytes);
  layout.zeroFill = take(config.zeroFillBytes / kPageBytes);
  if (next > layout.regionPages)
    fail(
        "--ram: too small: workload, io pages, balloon area and zero fill need %lu pages of each region, which has %lu",
        next, layout.regionPages);
  layout.untouched = {next, layout.regionPages - next};
  if (layout.workload.pages * config.regions < config.vcpus) fail("--workload: needs at least one page (4K) a vCPU");
  return layout;
}

void initialiseContext(GuestContext &c, const VmConfig &config, const Layout &layout, uint64_t worker) {
  const bool io = worker == config.vcpus;
  const Area area = io ? layout.io : layout.workload;
  c = GuestContext{};
  c.magic = kContextMagic;
  c.worker = worker;
  c.key = mix(config.seed * 0x9e3779b97f4a7c15ull + 1);
  c.pattern = static_cast<uint64_t>(config.pattern);
  c.order = static_cast<uint64_t>(config.order);
  for (uint64_t i = 0; i < layout.regions; i++) c.regionBase[i] = layout.gpa(i);
  c.regions = layout.regions;
  c.regionPages = layout.regionPages;
  c.areaFirst = area.first;
  c.areaPages = area.pages;
  c.first = io ? 0 : worker;
  c.stride = io ? 1 : config.vcpus;
  const uint64_t pages = area.pages * layout.regions;
  c.ownedPages = pages > c.first ? (pages - c.first + c.stride - 1) / c.stride : 0;
  c.zeroFillFirst = layout.zeroFill.first;
  c.zeroFillPages = layout.zeroFill.pages;
  c.untouchedFirst = layout.untouched.first;
  c.untouchedPages = layout.untouched.pages;
  c.zeroEvery = kZeroEvery;
  // About 200 waits a second keep the pace even without an exit a page.
  const uint64_t rate = io ? config.ioRate : config.vcpuRate;
  c.tickEvery = rate == 0 ? 0 : std::max<uint64_t>(1, rate / 200);
}

} // namespace testvmm
