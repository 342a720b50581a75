// The VMM's end of the VMM channel (docs/protocol.md): handshake with descriptors, then one JSON object a line both
// ways.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <map>
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
  /** How it comes to the agent. */
  struct Manner {
    bool keep = false; ///< comes back with the same descriptors if the agent goes away
    bool byAnother = false; ///< a process that does not have the memory connects
    bool inParts = false; ///< two pieces, the descriptors with the first
  };
  /** The handshake's text. `live`: a guest may run on this memory, so it is for an agent that goes on with it. */
  using Handshake = std::function<std::string(bool live)>;
  /** Connects; throws Failure naming the path. */
  AgentChannel(const std::string &path, const Layout &layout, Manner manner, Hooks hooks);

  /** Sends it with all descriptors, then starts reading. */
  void handshake(Handshake text, const std::vector<int> &fds);
  /** Throws Failure if the agent leaves first, or after `timeoutMs`. */
  void waitReady(uint64_t timeoutMs);
  Stage2Outcome resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting) override;
  std::string phase();

private:
  void sendHandshake(bool live);
  void run();
  void readMessages();
  void comeBack();
  void ask(uint64_t id, const Stage2Fault &fault);
  void onMessage(const std::string &line);
  void sendLine(const std::string &line);

  const std::string path_;
  const Layout layout_;
  const Manner manner_;
  const Hooks hooks_;
  Handshake text_;
  std::vector<int> fds_;
  /** Replaced by the thread that reads, under sendMutex_. */
  Fd socket_;
  std::mutex sendMutex_, mutex_;
  std::condition_variable changed_;
  bool ready_ = false, done_ = false, closed_ = false;
  uint64_t nextId_ = 1;
  std::map<uint64_t, Stage2Fault> outstanding_;
};

} // namespace testvmm
