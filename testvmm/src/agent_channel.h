// The VMM's end of the VMM channel (docs/protocol.md): handshake with descriptors, then one JSON object a line both
// ways.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "fd.h"
#include "firecracker.h"
#include "stage2_messages.h"
#include "vcpu.h"

namespace testvmm {

class AgentChannel {
public:
  struct Hooks {
    std::function<void()> onDone;
    /** The agent says that this page of the image is there; before the guest hears of it. */
    std::function<void(uint64_t offset)> onAnswered;
    /** The agent has the descriptors; the secret-free branch's word comes next. */
    std::function<void()> beforeWord;
  };
  /** How it comes to the agent. */
  struct Manner {
    bool keep = false; ///< comes back with the same descriptors if the agent goes away
    bool withGpa = false; ///< faults say where the guest sees the page
    bool secretFree = false; ///< speaks as Firecracker's secret-free branch does
    FirecrackerForm form = FirecrackerForm::both;
  };
  /** The handshake's text. `live`: a guest may run on this memory, so it is for an agent that goes on with it. */
  using Handshake = std::function<std::string(bool live)>;
  /** Connects; throws Failure naming the path. */
  AgentChannel(const std::string &path, const Layout &layout, Manner manner, Hooks hooks);

  /** Sends it with all descriptors, then starts reading. */
  void handshake(Handshake text, const std::vector<int> &fds);
  /** Throws Failure if the agent leaves first, or after `timeoutMs`. */
  void waitReady(uint64_t timeoutMs);
  Stage2Outcome resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting);
  std::string phase();
  /** Messages with more than one fault. */
  uint64_t batches() const { return batches_; }

private:
  void sendHandshake(bool live);
  void sayWord();
  void sendWith(const std::string &text, const std::vector<int> &fds);
  void run();
  void readMessages();
  void comeBack();
  void sendRequests();
  void onMessage(const std::string &line);
  void onAnswers(const std::vector<Stage2Answer> &answers);
  void sendAll(const std::string &text);

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
  /** Of the outstanding ones: whoever sends next takes them all. */
  std::vector<uint64_t> unsent_;
  std::atomic<uint64_t> batches_{0};
};

} // namespace testvmm
