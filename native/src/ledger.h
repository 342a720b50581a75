// The page ledger: the one owner of page state, shared by threads without a lock.
//
// Four bits a page, sixteen pages an atomic word: three of state and one that says that a fault waits for the page. All
// transitions of a word are one compare-and-swap, so two lanes cannot both claim a page, and a waiter noted before an install is always
// seen by that install (after it, the fault sees `present`).
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "ledger_memory.h"

namespace pagewake {

enum class PageState : uint8_t { missing = 0, requested = 1, present = 2, zero = 3, removed = 4 };
inline constexpr int kPageStates = 5;

struct PageRun {
  uint64_t first;
  uint64_t count;
};

// Serialises reading a REMOVE event (with its entry in the ledger) against check + install. Writers go first: the event reader
// is the fault lane and must not starve behind a bulk lane that takes the lock again at once, as std::shared_mutex would let it.
class InstallLock {
 public:
  // `reading` is raised while it is held exclusively: whoever finds it so after a crash knows that an event may be lost.
  explicit InstallLock(std::atomic<uint32_t>& reading);
  ~InstallLock() { pthread_rwlock_destroy(&lock_); }
  InstallLock(const InstallLock&) = delete;
  InstallLock& operator=(const InstallLock&) = delete;
  // 0, or EDEADLK where this thread holds it exclusively already.
  int lock_shared() { return pthread_rwlock_rdlock(&lock_); }
  int lock_exclusive() {
    const int error = pthread_rwlock_wrlock(&lock_);
    if (error == 0) reading_.store(1, std::memory_order_release);
    return error;
  }
  void unlock() {
    if (reading_.load(std::memory_order_relaxed) != 0) reading_.store(0, std::memory_order_release);
    pthread_rwlock_unlock(&lock_);
  }

 private:
  pthread_rwlock_t lock_;
  std::atomic<uint32_t>& reading_;
};

class Ledger {
 public:
  // All missing; in a file where `path` is not empty. Null with errno set.
  static std::shared_ptr<Ledger> create(uint64_t pageCount, const std::string& path);
  // As a process that is gone left it, in its file. Null with errno set.
  static std::shared_ptr<Ledger> open(const std::string& path);

  uint64_t page_count() const { return pageCount_; }
  InstallLock& install_lock() { return installLock_; }

  // The state in which a fault finds `page`. missing: it is now requested with a waiter, and the caller's to fetch. requested: a
  // waiter is noted, in the same swap. Anything else is left alone.
  PageState fault(uint64_t page);

  // Claims the first run of missing pages in [from, end), at most `maxPages` long: missing -> requested. count 0: there is none.
  PageRun claim_run(uint64_t from, uint64_t end, uint64_t maxPages);

  // Each returns how many pages changed, and calls `waiter(page)` for those that lost a waiter by it.
  template <class Waiter>
  uint64_t installed(uint64_t first, uint64_t count, Waiter waiter) {  // requested -> present
    return update(first, count, waiter, [](uint8_t nibble) { return state_of(nibble) == PageState::requested ? kPresent : nibble; });
  }
  // requested -> zero, but for pages that have a waiter: those stay requested, and `waiter(page)` is called for each. No waiter can come to a page that is
  // zero, and none is lost: it is noted in the same word.
  template <class Waiter>
  uint64_t found_zero(uint64_t first, uint64_t count, Waiter waiter) {
    const uint64_t changed = update(first, count, [](uint64_t) {}, [](uint8_t nibble) { return nibble == kRequested ? kZero : nibble; });
    for (uint64_t page = first; changed < count && page < first + count; page++) {
      if (state(page) == PageState::requested) waiter(page);
    }
    return changed;
  }
  template <class Waiter>
  uint64_t release(uint64_t first, uint64_t count, Waiter waiter) {  // requested -> missing
    return update(first, count, waiter, [](uint8_t nibble) { return state_of(nibble) == PageState::requested ? kMissing : nibble; });
  }
  template <class Waiter>
  uint64_t remove(uint64_t first, uint64_t count, Waiter waiter) {  // any -> removed
    return update(first, count, waiter, [](uint8_t) { return kRemoved; });
  }
  uint64_t set_zero(uint64_t first, uint64_t count) {  // missing -> zero
    return update(first, count, [](uint64_t) {}, [](uint8_t nibble) { return nibble == kMissing ? kZero : nibble; });
  }
  bool resolved(uint64_t page) {  // zero, removed -> present
    return update(page, 1, [](uint64_t) {}, [](uint8_t nibble) {
             const PageState state = state_of(nibble);
             return state == PageState::zero || state == PageState::removed ? kPresent : nibble;
           }) == 1;
  }

  PageState state(uint64_t page) const { return state_of(nibble_of(load(page / kPagesPerWord), page % kPagesPerWord)); }
  // The first page of the run that is not requested, or `first + count`.
  uint64_t first_not_requested(uint64_t first, uint64_t count) const;
  // The first missing page in [from, end), or `end`.
  uint64_t next_missing(uint64_t from, uint64_t end) const;
  // Calls `found(page)` for requested pages with a waiter, ascending from `from`, until it returns false.
  template <class Found>
  void waiters(uint64_t from, Found found) const;

  // What a crash left, put right by what is known of the memory: `held` is there, `absent` is not; `unknown`: nobody can tell, so what was
  // being fetched is fetched again. Waiters are forgotten: those threads are woken and fault anew. A page that was there once and
  // is not any more was given back. The same again is the same: a crash in the middle does no harm.
  enum class Seen : uint8_t { held = 0, absent = 1, unknown = 2 };
  uint64_t recover(uint64_t first, uint64_t count, Seen seen);

  // See LedgerHeader.
  uint32_t stage() const { return memory_->header().stage.load(std::memory_order_acquire); }
  void set_stage(uint32_t stage) { memory_->header().stage.store(stage, std::memory_order_release); }
  // A ledger that was opened: whoever had it before died while events were being read.
  bool died_reading() const { return diedReading_; }

  // Exact once the threads rest; while they work it may be off by the pages in motion.
  std::array<uint64_t, kPageStates> counts() const;
  // True only when no page is missing or requested. That number only falls, so true stays true.
  bool whole() const { return unresolved_.load(std::memory_order_acquire) == 0; }

 private:
  static constexpr uint64_t kPagesPerWord = 16;
  static constexpr uint8_t kWaiter = 8;
  static constexpr uint8_t kMissing = 0, kRequested = 1, kPresent = 2, kZero = 3, kRemoved = 4;

  explicit Ledger(std::unique_ptr<LedgerMemory> memory);

  static PageState state_of(uint8_t nibble) { return static_cast<PageState>(nibble & 7); }
  static uint8_t nibble_of(uint64_t word, uint64_t slot) { return static_cast<uint8_t>(word >> (slot * 4) & 15); }
  static uint64_t with_nibble(uint64_t word, uint64_t slot, uint8_t nibble) {
    return (word & ~(uint64_t{15} << (slot * 4))) | uint64_t{nibble} << (slot * 4);
  }
  uint64_t load(uint64_t index) const { return words_[index].load(std::memory_order_acquire); }
  bool swap(uint64_t index, uint64_t& expected, uint64_t desired) {
    return words_[index].compare_exchange_weak(expected, desired, std::memory_order_acq_rel, std::memory_order_acquire);
  }

  using Deltas = std::array<int64_t, kPageStates>;
  void account(const Deltas& deltas);

  template <class Waiter, class Next>
  uint64_t update(uint64_t first, uint64_t count, Waiter waiter, Next next);

  const std::unique_ptr<LedgerMemory> memory_;
  const uint64_t pageCount_;
  std::atomic<uint64_t>* const words_;
  bool diedReading_ = false;
  InstallLock installLock_;
  alignas(64) std::array<std::atomic<int64_t>, kPageStates> counts_{};
  alignas(64) std::atomic<int64_t> unresolved_;  // missing + requested
};

template <class Waiter, class Next>
uint64_t Ledger::update(uint64_t first, uint64_t count, Waiter waiter, Next next) {
  Deltas deltas{};
  uint64_t changed = 0;
  const uint64_t end = first + count;
  for (uint64_t page = first; page < end;) {
    const uint64_t index = page / kPagesPerWord;
    const uint64_t low = page % kPagesPerWord;
    const uint64_t high = end - page < kPagesPerWord - low ? low + (end - page) : kPagesPerWord;
    uint64_t before = load(index);
    uint64_t after = 0;
    do {
      after = before;
      for (uint64_t slot = low; slot < high; slot++) after = with_nibble(after, slot, next(nibble_of(before, slot)));
    } while (after != before && !swap(index, before, after));
    // Only after the swap: what was there is now known, and nobody else can have reported the same waiter.
    for (uint64_t slot = low; after != before && slot < high; slot++) {
      const uint8_t was = nibble_of(before, slot);
      const uint8_t is = nibble_of(after, slot);
      if (was == is) continue;
      changed++;
      deltas[was & 7]--;
      deltas[is & 7]++;
      if ((was & kWaiter) != 0 && (is & kWaiter) == 0) waiter(page - low + slot);
    }
    page += high - low;
  }
  if (changed != 0) account(deltas);
  return changed;
}

template <class Found>
void Ledger::waiters(uint64_t from, Found found) const {
  for (uint64_t page = from; page < pageCount_; page++) {
    const uint64_t word = load(page / kPagesPerWord);
    if ((word & 0x8888888888888888u) == 0) {
      page |= kPagesPerWord - 1;
      continue;
    }
    if (nibble_of(word, page % kPagesPerWord) == (kRequested | kWaiter) && !found(page)) return;
  }
}

}  // namespace pagewake
