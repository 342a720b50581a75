#include "ledger.h"

#include <bit>
#include <cerrno>

namespace pagewake {

InstallLock::InstallLock(std::atomic<uint32_t>& reading) : reading_(reading) {
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
#ifdef __GLIBC__
  pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
  pthread_rwlock_init(&lock_, &attributes);
  pthread_rwlockattr_destroy(&attributes);
}

Ledger::Ledger(std::unique_ptr<LedgerMemory> memory)
    : memory_(std::move(memory)),
      pageCount_(memory_->header().pageCount),
      words_(memory_->words()),
      installLock_(memory_->header().reading),
      unresolved_(static_cast<int64_t>(pageCount_)) {
  counts_[static_cast<size_t>(PageState::missing)] = static_cast<int64_t>(pageCount_);
}

std::shared_ptr<Ledger> Ledger::create(uint64_t pageCount, const std::string& path) {
  auto memory = LedgerMemory::create(pageCount, path);
  return memory == nullptr ? nullptr : std::shared_ptr<Ledger>(new Ledger(std::move(memory)));
}

std::shared_ptr<Ledger> Ledger::open(const std::string& path) {
  auto memory = LedgerMemory::open(path);
  if (memory == nullptr) return nullptr;
  const bool reading = memory->header().reading.exchange(0) != 0;
  std::shared_ptr<Ledger> ledger(new Ledger(std::move(memory)));
  ledger->diedReading_ = reading;
  Deltas deltas{};
  for (uint64_t page = 0; page < ledger->pageCount_; page++) {
    const auto state = static_cast<size_t>(ledger->state(page));
    if (state >= kPageStates) {
      errno = EINVAL;
      return nullptr;
    }
    deltas[0]--;
    deltas[state]++;
  }
  ledger->account(deltas);
  return ledger;
}

uint64_t Ledger::recover(uint64_t first, uint64_t count, Seen seen) {
  return update(
      first, count, [](uint64_t) {},
      [seen](uint8_t nibble) {
        if (seen == Seen::held) return kPresent;
        switch (state_of(nibble)) {
          case PageState::requested:
            return kMissing;
          case PageState::present:
            return seen == Seen::absent ? kRemoved : nibble;
          default:
            return nibble;
        }
      });
}

PageState Ledger::fault(uint64_t page) {
  const uint64_t index = page / kPagesPerWord;
  const uint64_t slot = page % kPagesPerWord;
  uint64_t before = load(index);
  for (;;) {
    const PageState state = state_of(nibble_of(before, slot));
    if (state != PageState::missing && state != PageState::requested) return state;
    const uint64_t after = with_nibble(before, slot, kRequested | kWaiter);
    if (after != before && !swap(index, before, after)) continue;
    if (state == PageState::missing) account({-1, 1, 0, 0, 0});
    return state;
  }
}

PageRun Ledger::claim_run(uint64_t from, uint64_t end, uint64_t maxPages) {
  PageRun run{0, 0};
  while (run.count < maxPages) {
    const uint64_t page = run.count == 0 ? next_missing(from, end) : run.first + run.count;
    if (page >= end) break;
    const uint64_t index = page / kPagesPerWord;
    const uint64_t slot = page % kPagesPerWord;
    uint64_t before = load(index);
    uint64_t after = before;
    uint64_t taken = 0;
    while (slot + taken < kPagesPerWord && page + taken < end && run.count + taken < maxPages &&
           nibble_of(before, slot + taken) == kMissing) {
      after = with_nibble(after, slot + taken, kRequested);
      taken++;
    }
    if (taken == 0) {
      if (run.count != 0) break;  // the run ends here
      from = page;                // somebody was faster: search on
      continue;
    }
    if (!swap(index, before, after)) continue;
    if (run.count == 0) run.first = page;
    run.count += taken;
    if (slot + taken < kPagesPerWord) break;
  }
  const auto count = static_cast<int64_t>(run.count);
  if (count != 0) account({-count, count, 0, 0, 0});
  return run;
}

uint64_t Ledger::first_not_requested(uint64_t first, uint64_t count) const {
  for (uint64_t page = first; page < first + count; page++) {
    if (state(page) != PageState::requested) return page;
  }
  return first + count;
}

uint64_t Ledger::next_missing(uint64_t from, uint64_t end) const {
  constexpr uint64_t kLowBits = 0x1111111111111111u;
  while (from < end) {
    const uint64_t word = load(from / kPagesPerWord);
    const uint64_t slot = from % kPagesPerWord;
    // One bit a page that is missing, which is the nibble 0: a waiter bit never stands without a request.
    const uint64_t missing = ~(word | word >> 1 | word >> 2 | word >> 3) & kLowBits & (~uint64_t{0} << (slot * 4));
    if (missing != 0) {
      const uint64_t page = from - slot + static_cast<uint64_t>(std::countr_zero(missing)) / 4;
      return page < end ? page : end;
    }
    from += kPagesPerWord - slot;
  }
  return end;
}

void Ledger::account(const Deltas& deltas) {
  for (size_t state = 0; state < deltas.size(); state++) {
    if (deltas[state] != 0) counts_[state].fetch_add(deltas[state], std::memory_order_relaxed);
  }
  const int64_t unresolved = deltas[0] + deltas[1];
  if (unresolved != 0) unresolved_.fetch_add(unresolved, std::memory_order_acq_rel);
}

std::array<uint64_t, kPageStates> Ledger::counts() const {
  std::array<uint64_t, kPageStates> counts{};
  for (size_t state = 0; state < counts.size(); state++) {
    const int64_t count = counts_[state].load(std::memory_order_relaxed);
    counts[state] = count > 0 ? static_cast<uint64_t>(count) : 0;
  }
  return counts;
}

}  // namespace pagewake
