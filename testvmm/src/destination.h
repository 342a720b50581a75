// The destination role: builds a VM from a state blob with its RAM empty, hands the RAM to the agent, lets the guest go
// on.
#pragma once
#include <atomic>
#include <memory>

#include "agent_channel.h"
#include "balloon.h"
#include "machine.h"
#include "options.h"

namespace testvmm {

class Destination final : private Stage2Resolver {
public:
  /** Builds the VM and connects to the agent; throws Failure while nothing is handed over yet. */
  Destination(const Options &options, const SavedState &state, const std::string &agentPath);
  /** Handshake, `ready`, vCPUs run; returns when they were let go (CLOCK_MONOTONIC). Failing here is final for the VM.
   */
  long long handOverAndRun();
  std::shared_ptr<Machine> machine() const { return machine_; }
  std::string statsJson() const;
  /** Counts of stage-2 faults that exited. */
  std::string stage2Json() const;

private:
  static VmConfig configFor(const Options &options, const SavedState &state);
  std::string handshakeJson(bool live) const;
  std::vector<int> descriptors();
  std::shared_ptr<Machine> makeMachine(const SavedState &state);
  void onDone();
  void onAnswered(uint64_t offset) const;
  Stage2Outcome resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting) override;
  /** The stage-2 page is in the memory file: the guest may go on once this is back. */
  void makeAccessible(const Stage2Fault &fault) const;

  const Options options_;
  std::shared_ptr<UserfaultBitmap> bitmap_;
  std::shared_ptr<Machine> machine_;
  std::atomic<uint64_t> fallocated_{0};
  Fd uffd_;
  /** What is sent in its place, or with it, where the handshake is to be refused. */
  Fd stray_;
  std::unique_ptr<AgentChannel> channel_;
  std::unique_ptr<Balloon> balloon_;
};

} // namespace testvmm
