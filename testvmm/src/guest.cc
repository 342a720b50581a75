// The guest. This one function is copied into the boot slot and run by vCPUs at CPL 3 in long mode; the I/O thread, and
// plain threads where there is no KVM, call it in place. Hence: no call, no global, no constant in memory (the Makefile
// checks), and every access to the context volatile, for the host reads it at any time.
//
// Pass 0 fills; pass k = 1, 2, ... visits every owned page once, in random order or from first to last, requires version
// k-1, writes version k.
#include "pattern.h"

#define GUEST_CODE [[gnu::section("guest_code")]]

namespace testvmm {
namespace {

using Context = volatile GuestContext;

/** Page accesses are not volatile; without this the compiler may move them before the note of which page is touched. */
TESTVMM_INLINE void barrier() { asm volatile("" ::: "memory"); }

TESTVMM_INLINE uint64_t readTsc() {
  uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return (static_cast<uint64_t>(high) << 32) | low;
}

TESTVMM_INLINE void say(Context *c, uint16_t what) {
  barrier();
  const uint64_t out = c->out;
  if (out != 0) {
    reinterpret_cast<void (*)(Context *, uint16_t)>(out)(c, what);
  } else {
    asm volatile("outb %%al, %%dx" ::"a"(0), "d"(what) : "memory");
  }
}

/** A VMM whose KVM names no GPA learns from this which page the vCPU was about to touch. */
TESTVMM_INLINE void note(Context *c, uint64_t kind, PagePlace at) {
  c->touchRegion = at.region;
  c->touchPage = at.page;
  c->touchKind = kind;
  barrier();
}

TESTVMM_INLINE uint64_t *addressOf(Context *c, PagePlace at) {
  return reinterpret_cast<uint64_t *>(c->regionBase[at.region] + at.page * kPageBytes);
}

TESTVMM_INLINE void check(Context *c, PagePlace at, uint64_t version) {
  const uint64_t *words = addressOf(c, at);
  PageWords expected(c->key, c->pattern, at.region * c->regionPages + at.page, version);
  for (uint64_t i = 0; i < kWordsPerPage; i++) {
    const uint64_t want = expected.next(), found = words[i];
    if (found == want) continue;
    c->wrongRegion = at.region;
    c->wrongPage = at.page;
    c->wrongWord = i;
    c->wrongExpected = want;
    c->wrongFound = found;
    c->wrongVersion = version;
    c->wrong = c->wrong + 1;
    say(c, port::wrong); // the host ends the program here
    return;
  }
}

TESTVMM_INLINE void rewrite(Context *c, PagePlace at, uint64_t version) {
  uint64_t *words = addressOf(c, at);
  PageWords content(c->key, c->pattern, at.region * c->regionPages + at.page, version);
  for (uint64_t i = 0; i < kWordsPerPage; i++) words[i] = content.next();
}

/** Holes are read through a window that grows with time, so that at any later moment some were never touched by
 * anybody. */
TESTVMM_INLINE void readZeroPage(Context *c, uint64_t chance) {
  const uint64_t filled = c->zeroFillPages * c->regions, untouched = c->untouchedPages * c->regions;
  const uint64_t window = (c->heartbeats + 1) * 64;
  const uint64_t holes = untouched < window ? untouched : window;
  if (filled + holes == 0) return;
  const uint64_t pick = (chance >> 1) % (filled + holes);
  PagePlace at;
  if (pick < filled) {
    at = {pick / c->zeroFillPages, c->zeroFillFirst + pick % c->zeroFillPages};
  } else {
    const uint64_t hole = pick - filled;
    at = {hole % c->regions, c->untouchedFirst + hole / c->regions};
  }
  note(c, touch::read, at);
  check(c, at, kNoVersion);
  c->zeroReads = c->zeroReads + 1;
  c->touchKind = touch::none;
}

TESTVMM_INLINE void visit(Context *c, uint64_t pass, PagePlace at) {
  if (pass > 0) {
    note(c, touch::read, at);
    check(c, at, pass - 1);
  }
  note(c, touch::write, at);
  rewrite(c, at, pass);
  barrier();
  c->work = c->work + 1;
}

TESTVMM_INLINE void housekeeping(Context *c, uint64_t pass, uint64_t step) {
  const uint64_t zeroEvery = c->zeroEvery, tickEvery = c->tickEvery;
  if (pass > 0 && zeroEvery != 0 && c->work % zeroEvery == 0) readZeroPage(c, mix(c->key + (pass << 32) + step));
  // A destination's clock may be behind the source's: the difference wraps and counts as elapsed.
  const uint64_t now = readTsc();
  if (now - c->lastHeartbeatTsc >= c->heartbeatTsc) {
    c->lastHeartbeatTsc = now;
    c->heartbeats = c->heartbeats + 1;
    say(c, port::heartbeat);
  }
  if (tickEvery != 0 && pass > 0) { // filling is not held back
    const uint64_t since = c->sinceTick + 1;
    c->sinceTick = since < tickEvery ? since : 0;
    if (since >= tickEvery) say(c, port::tick);
  }
}

} // namespace

extern "C" GUEST_CODE void testvmm_guest(Context *c) {
  for (;;) {
    const uint64_t position = c->position, pass = position >> kPassShift;
    const PassOrder order(c->key, c->worker, pass, c->ownedPages, c->order);
    uint64_t step = position & ((1ull << kPassShift) - 1);
    uint64_t x = step == 0 ? order.start : c->orderX;
    while (step < order.steps()) {
      if (c->stop != 0) return;
      const uint64_t index = order.page(x);
      const bool owned = index < c->ownedPages;
      if (owned) visit(c, pass, placeOf(*c, index));
      step++;
      x = order.next(x);
      c->orderX = x;
      c->position = (pass << kPassShift) | step;
      c->touchKind = touch::none;
      if (owned) housekeeping(c, pass, step);
    }
    c->position = (pass + 1) << kPassShift;
    if (pass == 0) {
      c->filled = 1;
      say(c, port::filled);
    }
  }
}

} // namespace testvmm
