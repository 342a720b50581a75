// A worker is a thread that runs the workload over its own context page: a vCPU of KVM, a plain thread in its place, or
// the I/O thread. This base class has the part they share: parking between two instructions (or pages), pace,
// heartbeats.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "guest_context.h"

namespace testvmm {

struct HeartbeatStats {
  uint64_t count = 0;
  long long lastNs = 0, longestGapNs = 0, longestGapSinceLoadNs = 0;
  /** The gap that spans the move: last heartbeat on the source to the first here; -1 before it. */
  long long moveGapNs = -1;
};

class Worker;

/** What a worker tells its machine; called on the worker's own thread. */
class WorkerObserver {
public:
  virtual ~WorkerObserver() = default;
  virtual void onFilled(Worker &worker) = 0;
  virtual void onWrongPage(Worker &worker) = 0;
};

class Worker {
public:
  Worker(std::string name, volatile GuestContext &context, uint64_t pagesPerSecond, WorkerObserver &observer);
  Worker(const Worker &) = delete;
  virtual ~Worker() = default;

  /** Creates the thread, parked. Its id is known when this returns. */
  void start();
  void resume();
  void requestPause();
  /** False if it is still not parked at `deadlineNs` (CLOCK_MONOTONIC): it waits for a page. */
  bool waitParked(long long deadlineNs);
  /** Ends a parked thread. Derived classes call it in their destructors, before their members go. */
  void join();

  pid_t tid() const { return tid_; }
  const std::string &name() const { return name_; }
  volatile GuestContext &context() { return context_; }
  HeartbeatStats heartbeats();
  /** After a load: the source's last heartbeat and longest gap, for the gap that spans the move. */
  void continueHeartbeats(long long lastNs, long long longestGapNs);

  /** Installs the signal that makes a running worker look at its pause flag; once, before any worker starts. */
  static void installKickSignal();

protected:
  /** Runs until `pauseRequested`; must come back promptly after the kick signal. */
  virtual void run() = 0;
  /** Makes `run` look at `pauseRequested`, from another thread; repeated until it parks. */
  virtual void interrupt() { kick(); }
  /** On the worker's thread, once, before it first parks. */
  virtual void onThreadStart() {}
  /** The workload said something by `out`. */
  void onOut(uint16_t what);
  bool pauseRequested() const { return pauseRequested_.load(); }
  const std::atomic<bool> &pauseFlag() const { return pauseRequested_; }
  void kick();

private:
  void main();
  void onHeartbeat();
  void keepPace();

  const std::string name_;
  volatile GuestContext &context_;
  const uint64_t pagesPerSecond_;
  WorkerObserver &observer_;
  std::atomic<bool> pauseRequested_{true};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool parked_ = false, ending_ = false;
  pid_t tid_ = 0;
  HeartbeatStats heartbeats_;
  bool spansMove_ = false;
  long long nextTickNs_ = 0;
  std::thread thread_;
};

/** Runs the workload on a plain thread: the I/O thread always, vCPUs where there is no KVM. */
class ThreadWorker final : public Worker {
public:
  using Worker::Worker;
  ~ThreadWorker() override { join(); }
  /** Ticks of the host's time-stamp counter a millisecond, measured once against the clock. */
  static uint64_t hostTscKhz();

private:
  void run() override;
  void interrupt() override;
  static void out(volatile GuestContext *context, uint16_t what);
};

} // namespace testvmm
