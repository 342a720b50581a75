// The VMM's end of the VMM channel (docs/protocol.md): handshake with descriptors, then one JSON object a line both
// ways.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fd.h"
#include "vcpu.h"

namespace testvmm {

class AgentChannel final : public Stage2Resolver {
public:
  struct Hooks {
    std::function<void()> onDone;
    /** The stage-2 page was answered for: make it accessible before the guest goes on. */
    std::function<void(const Stage2Fault &)> onResolved;
  };
  /** Connects; throws Failure naming the path. */
  AgentChannel(const std::string &path, const Layout &layout, Hooks hooks);

  /** One sendmsg with all descriptors, then starts reading. */
  void handshake(const std::string &json, const std::vector<int> &fds);
  /** Throws Failure if the agent leaves first, or after `timeoutMs`. */
  void waitReady(uint64_t timeoutMs);
  Stage2Outcome resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting) override;
  std::string phase();

private:
  void readMessages();
  void onMessage(const std::string &line);
  void sendLine(const std::string &line);

  const Layout layout_;
  const Hooks hooks_;
  Fd socket_;
  std::mutex sendMutex_, mutex_;
  std::condition_variable changed_;
  bool ready_ = false, done_ = false, closed_ = false;
  uint64_t nextId_ = 1;
  std::set<uint64_t> outstanding_;
};

} // namespace testvmm
