// What the guest and its host share: one page per worker (a vCPU, or the I/O thread), inside the boot slot, never under
// userfaultfd. The page is the whole memory of the workload besides registers and stack, so saving it saves the guest's
// place.
#pragma once
#include <cstdint>

namespace testvmm {

inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kWordsPerPage = kPageBytes / 8;
inline constexpr uint64_t kMaxRegions = 8;
inline constexpr uint64_t kContextMagic = 0x70616765'77616b65; // "pagewake"
/** A version that was never written: the page reads as zeros. */
inline constexpr uint64_t kNoVersion = ~0ull;
/** `position` is pass << kPassShift | step: one store moves both, so a pause between two stores cannot tear them. */
inline constexpr unsigned kPassShift = 36;

enum class Pattern : uint64_t { random = 0, text = 1, zeroHeavy = 2 };
enum class Order : uint64_t { random = 0, sequential = 1 };

/** What the guest says by `out`: the port number is the message. */
namespace port {
inline constexpr uint16_t heartbeat = 0x10, wrong = 0x11, filled = 0x12, tick = 0x13;
}

/** What the worker does with the page named in `touchRegion`, `touchPage`; set before the first access to it. */
namespace touch {
inline constexpr uint64_t none = 0, read = 1, write = 2;
}

struct GuestContext {
  uint64_t magic;
  uint64_t worker;
  uint64_t key;
  uint64_t pattern;
  uint64_t order;
  /** Address of each region as this worker sees it: GPA in a guest, HVA on a thread. */
  uint64_t regionBase[kMaxRegions];
  uint64_t regionPages;
  /** The area whose pages it owns: `areaPages` pages of each region, from page `areaFirst` on; every `stride`th from
   * `first`. */
  uint64_t areaFirst, areaPages, first, stride, ownedPages;
  /** Zero area: pages filled with explicit zeros, then pages that nobody ever wrote, per region. */
  uint64_t zeroFillFirst, zeroFillPages, untouchedFirst, untouchedPages, regions;
  /** A zero page is read after this many pages; 0: never. */
  uint64_t zeroEvery;
  /** An `out` to port::tick after this many pages, for pacing; 0: never. */
  uint64_t tickEvery, sinceTick;
  uint64_t heartbeatTsc, lastHeartbeatTsc, heartbeats;
  uint64_t position, orderX;
  uint64_t work, zeroReads, filled;
  uint64_t touchKind, touchRegion, touchPage;
  uint64_t wrong, wrongRegion, wrongPage, wrongWord, wrongExpected, wrongFound, wrongVersion;
  /** Threads only: leave between two pages. A vCPU is stopped from outside. */
  uint64_t stop;
  /** Threads only, in place of `out`: void (*)(volatile GuestContext*, uint16_t port). */
  uint64_t out;
};
static_assert(sizeof(GuestContext) <= kPageBytes);

/** The workload. In a guest it never returns; on a thread it returns when `stop` is set. */
extern "C" void testvmm_guest(volatile GuestContext *context);

} // namespace testvmm
