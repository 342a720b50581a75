#include "given-back.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define RETRY_MS 1

struct Kept {
  _Atomic uintptr_t address;
  /** 0: nothing is kept here. */
  atomic_size_t bytes;
};

/**
 * One call after the other has it, whichever thread makes them. A call whose event an agent took along has returned; the next one in its place waits
 * for another agent. So no lock is needed, and no thread that ends takes anything along.
 */
struct Place {
  atomic_bool taken;
  /** Odd while `kept` changes. Only who has the place changes it. */
  atomic_uint version;
  unsigned newest;
  struct Kept kept[GIVEN_BACK_KEPT];
};
static struct Place places[GIVING_BACK_AT_ONCE];

static struct Place *take(void) {
  for (;;) {
    // The lowest that is free: those in use stay few.
    for (size_t i = 0; i < GIVING_BACK_AT_ONCE; i++)
      if (!atomic_load_explicit(&places[i].taken, memory_order_relaxed) &&
          !atomic_exchange_explicit(&places[i].taken, true, memory_order_acquire))
        return &places[i];
    nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000}, NULL);
  }
}

/** A reader finds the range whole, or looks again: half of one would take from the guest what it has not given back. */
static void keep(struct Place *place, struct Range range) {
  const unsigned version = atomic_load_explicit(&place->version, memory_order_relaxed);
  struct Kept *const kept = &place->kept[place->newest];
  atomic_store_explicit(&place->version, version + 1, memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
  atomic_store_explicit(&kept->address, range.address, memory_order_relaxed);
  atomic_store_explicit(&kept->bytes, range.bytes, memory_order_relaxed);
  atomic_store_explicit(&place->version, version + 2, memory_order_release);
}

size_t beginGivingBack(struct Range range) {
  struct Place *const place = take();
  place->newest = (place->newest + 1) % GIVEN_BACK_KEPT;
  keep(place, range);
  return (size_t)(place - places);
}

void endGivingBack(size_t index, bool gone) {
  struct Place *const place = &places[index];
  if (!gone) {
    keep(place, (struct Range){0, 0});
    place->newest = (place->newest + GIVEN_BACK_KEPT - 1) % GIVEN_BACK_KEPT;
  }
  atomic_store_explicit(&place->taken, false, memory_order_release);
}

/** @returns false where it was changed meanwhile */
static bool readPlace(struct Place *place, struct Range ranges[GIVEN_BACK_KEPT]) {
  const unsigned version = atomic_load_explicit(&place->version, memory_order_acquire);
  for (size_t i = 0; i < GIVEN_BACK_KEPT; i++) {
    ranges[i].address = atomic_load_explicit(&place->kept[i].address, memory_order_relaxed);
    ranges[i].bytes = atomic_load_explicit(&place->kept[i].bytes, memory_order_relaxed);
  }
  atomic_thread_fence(memory_order_acquire);
  return version % 2 == 0 && atomic_load_explicit(&place->version, memory_order_relaxed) == version;
}

size_t lastGivenBack(struct Range ranges[MAX_GIVEN_BACK]) {
  size_t count = 0;
  for (size_t i = 0; i < GIVING_BACK_AT_ONCE; i++) {
    struct Range found[GIVEN_BACK_KEPT];
    while (!readPlace(&places[i], found)) sched_yield();
    for (size_t k = 0; k < GIVEN_BACK_KEPT; k++)
      if (found[k].bytes > 0) ranges[count++] = found[k];
  }
  return count;
}
