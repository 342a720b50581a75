#include "worker.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "events.h"
#include "failure.h"

namespace testvmm {

Worker::Worker(std::string name, volatile GuestContext &context, uint64_t pagesPerSecond, WorkerObserver &observer)
    : name_(std::move(name)), context_(context), pagesPerSecond_(pagesPerSecond), observer_(observer) {}

void Worker::start() {
  thread_ = std::thread([this] { main(); });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return parked_; });
}

void Worker::main() {
  pthread_setname_np(pthread_self(), name_.c_str());
  tid_ = static_cast<pid_t>(syscall(SYS_gettid));
  onThreadStart();
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      parked_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return ending_ || !pauseRequested_; });
      if (ending_) return;
      parked_ = false;
    }
    nextTickNs_ = 0;
    run();
  }
}

void Worker::resume() {
  const std::lock_guard lock(mutex_);
  pauseRequested_ = false;
  changed_.notify_all();
}

void Worker::requestPause() {
  // The flag first, the signal after: a worker that misses the signal sees the flag.
  pauseRequested_ = true;
  interrupt();
}

bool Worker::waitParked(long long deadlineNs) {
  std::unique_lock lock(mutex_);
  while (!parked_) {
    if (monotonicNs() >= deadlineNs) return false;
    changed_.wait_for(lock, std::chrono::milliseconds(20));
    if (!parked_) interrupt(); // the first may have fallen between a look at the flag and a sleep
  }
  return true;
}

void Worker::join() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void Worker::kick() {
  if (thread_.joinable()) pthread_kill(thread_.native_handle(), SIGUSR1);
}

HeartbeatStats Worker::heartbeats() {
  const std::lock_guard lock(mutex_);
  return heartbeats_;
}

void Worker::continueHeartbeats(long long lastNs, long long longestGapNs) {
  const std::lock_guard lock(mutex_);
  heartbeats_.lastNs = lastNs;
  heartbeats_.longestGapNs = longestGapNs;
  spansMove_ = lastNs != 0;
}

void Worker::onOut(uint16_t what) {
  switch (what) {
  case port::heartbeat: return onHeartbeat();
  case port::tick: return keepPace();
  case port::filled: return observer_.onFilled(*this);
  case port::wrong: return observer_.onWrongPage(*this);
  default: events::failNow(exit_code::guestFailed, "GUEST", text("%s said the unknown %#x", name_.c_str(), what));
  }
}

void Worker::onHeartbeat() {
  const long long now = monotonicNs();
  {
    const std::lock_guard lock(mutex_);
    HeartbeatStats &h = heartbeats_;
    const long long gap = h.lastNs == 0 ? 0 : now - h.lastNs;
    h.longestGapNs = std::max(h.longestGapNs, gap);
    h.longestGapSinceLoadNs = std::max(h.longestGapSinceLoadNs, gap);
    if (spansMove_) h.moveGapNs = gap;
    spansMove_ = false;
    h.lastNs = now;
    h.count++;
  }
  events::printHeartbeat(JsonObject()
                             .add("event", "heartbeat")
                             .add("worker", name_)
                             .add("vcpu", context_.worker)
                             .add("at_ns", now)
                             .add("work", context_.work));
}

void Worker::keepPace() {
  const long long now = monotonicNs();
  // After a stall the lost time is not made up for by a burst.
  if (nextTickNs_ < now - 100'000'000) nextTickNs_ = now;
  nextTickNs_ += static_cast<long long>(context_.tickEvery * 1'000'000'000ull / pagesPerSecond_);
  const timespec until{nextTickNs_ / 1'000'000'000, nextTickNs_ % 1'000'000'000};
  if (nextTickNs_ > now)
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr); // the kick signal ends it early
}

namespace {
thread_local ThreadWorker *currentWorker = nullptr;
}

void ThreadWorker::run() {
  currentWorker = this;
  context().out = reinterpret_cast<uintptr_t>(&ThreadWorker::out);
  for (;;) {
    __atomic_store_n(&context().stop, 0, __ATOMIC_SEQ_CST);
    if (pauseRequested()) break;
    testvmm_guest(&context());
  }
  context().out = 0; // an address of this process means nothing in a saved state
}

void ThreadWorker::interrupt() {
  __atomic_store_n(&context().stop, 1, __ATOMIC_SEQ_CST);
  kick();
}

void ThreadWorker::out(volatile GuestContext *, uint16_t what) { currentWorker->onOut(what); }

uint64_t ThreadWorker::hostTscKhz() {
  static const uint64_t khz = [] {
    const long long t0 = monotonicNs();
    const uint64_t c0 = __builtin_ia32_rdtsc();
    long long t1 = t0;
    while ((t1 = monotonicNs()) - t0 < 20'000'000) usleep(1000);
    return (__builtin_ia32_rdtsc() - c0) * 1'000'000 / static_cast<uint64_t>(t1 - t0);
  }();
  return khz;
}

} // namespace testvmm
