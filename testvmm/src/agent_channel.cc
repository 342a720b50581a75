#include "agent_channel.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "control.h"
#include "events.h"
#include "failure.h"

namespace testvmm {
namespace {
constexpr int kComeBackMs = 50;
/** Long enough for the first piece to be read alone, as a rule; either way is right. */
constexpr int kBetweenPartsMs = 20;

/** Whether somebody listens there or not: what follows is the same. */
void lookForApfSocket(const std::string &agent) {
  try {
    connectUnix(agent.substr(0, agent.rfind('/') + 1) + "apf.socket", "asynchronous faults'");
  } catch (const Failure &) {
    return;
  }
}

/** Without an answer that is understood a vCPU would wait for ever. */
std::vector<Stage2Answer> understood(const std::function<std::vector<Stage2Answer>()> &read) {
  try {
    return read();
  } catch (const Failure &failure) {
    events::failNow(exit_code::memoryGone, "BAD_MESSAGE", failure.what());
  }
}
} // namespace

AgentChannel::AgentChannel(const std::string &path, const Layout &layout, Manner manner, Hooks hooks)
    : path_(path), layout_(layout), manner_(manner), hooks_(std::move(hooks)) {
  if (manner.form == FirecrackerForm::apfSocket) lookForApfSocket(path);
  socket_ = manner.form == FirecrackerForm::byAnother ? connectUnixByAnother(path, "agent's")
                                                      : connectUnix(path, "agent's");
}

void AgentChannel::handshake(Handshake text, const std::vector<int> &fds) {
  text_ = std::move(text);
  fds_ = fds;
  sendHandshake(false);
  std::thread([this] { run(); }).detach(); // the channel lives as long as the program
}

void AgentChannel::sendHandshake(bool live) {
  const std::string json = text_(live);
  if (manner_.form == FirecrackerForm::wordJoined) {
    hooks_.beforeWord();
    return sendWith(json + secret_free::kWord, fds_);
  }
  const bool inParts = manner_.form == FirecrackerForm::inParts;
  const size_t first = inParts ? json.size() / 2 : json.size();
  sendWith(json.substr(0, first), fds_);
  if (inParts) {
    std::this_thread::sleep_for(std::chrono::milliseconds(kBetweenPartsMs));
    sendWith(json.substr(first), {});
  }
  if (!manner_.secretFree || manner_.form == FirecrackerForm::half) return;
  // An agent that looked at the bitmap already would find it empty.
  std::this_thread::sleep_for(std::chrono::milliseconds(kBetweenPartsMs));
  hooks_.beforeWord();
  sayWord();
}

void AgentChannel::sayWord() {
  const std::string word = secret_free::kWord;
  switch (manner_.form) {
  case FirecrackerForm::exitless:
    return sendWith(secret_free::kExitlessWord, std::vector<int>(secret_free::kExitlessDescriptors, fds_.back()));
  case FirecrackerForm::framed:
    return sendWith(word + std::string(secret_free::kFrame, sizeof secret_free::kFrame - 1), {});
  case FirecrackerForm::wordInParts:
    sendWith(word.substr(0, word.size() / 2), {});
    std::this_thread::sleep_for(std::chrono::milliseconds(kBetweenPartsMs));
    return sendWith(word.substr(word.size() / 2), {});
  default: return sendWith(word, {});
  }
}

void AgentChannel::sendWith(const std::string &text, const std::vector<int> &fds) {
  iovec part{const_cast<char *>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr *const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(head), fds.data(), fds.size() * sizeof(int));
  }
  const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  if (sent < 0) failErrno("handing memory to the agent");
  if (sent != static_cast<ssize_t>(text.size()))
    fail("handing memory to the agent: %zd of %zu bytes taken", sent, text.size());
}

void AgentChannel::run() {
  for (;;) {
    readMessages();
    std::unique_lock lock(mutex_);
    // Before `done` nothing is lost: our userfaultfd keeps the ranges trapped, whoever touches a missing page waits.
    events::print(JsonObject().add("event", "agent_closed").add("done", done_).add("at_ns", monotonicNs()));
    if (done_ || !manner_.keep) {
      closed_ = true;
      changed_.notify_all();
      return;
    }
    lock.unlock();
    comeBack();
  }
}

/** Hands the same memory to the agent that comes next, and asks again for what the last one did not answer. */
void AgentChannel::comeBack() {
  for (bool back = false; !back;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(kComeBackMs));
    try {
      Fd next = connectUnix(path_, "agent's");
      std::unique_lock lock(mutex_);
      const bool live = ready_;
      lock.unlock();
      const std::lock_guard sending(sendMutex_);
      socket_ = std::move(next);
      sendHandshake(live);
      const std::lock_guard asking(mutex_);
      unsent_.clear();
      for (const auto &[id, fault] : outstanding_) unsent_.push_back(id);
      back = true;
    } catch (const Failure &) {
      continue; // not there yet, or gone again
    }
  }
  events::print(JsonObject().add("event", "handed_over").add("again", true).add("at_ns", monotonicNs()));
  sendRequests();
}

void AgentChannel::readMessages() {
  std::string buffer;
  char chunk[4096];
  for (;;) {
    const ssize_t n = recv(socket_.get(), chunk, sizeof chunk, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    buffer.append(chunk, static_cast<size_t>(n));
    // A refusal comes as a line whatever was spoken.
    if (manner_.secretFree && !buffer.starts_with("{\"type\"")) {
      onAnswers(understood([&] { return takeAnswers(buffer); }));
      continue;
    }
    for (size_t end; (end = buffer.find('\n')) != std::string::npos; buffer.erase(0, end + 1))
      onMessage(buffer.substr(0, end));
  }
}

void AgentChannel::onMessage(const std::string &line) {
  std::map<std::string, std::string> message;
  try {
    message = parseFlatObject(line);
  } catch (const Failure &failure) {
    events::print(JsonObject().add("event", "bad_message").add("message", failure.what()));
    return;
  }
  const std::string type = message["type"];
  if (type == "failed")
    events::failNow(exit_code::memoryGone, message["reason"],
                    "the agent cannot finish the migration: " + message["message"]);
  if (type == "resolved" || type == "all_resolved") return onAnswers(understood([&] { return answersOf(line); }));
  if (type != "held" && type != "ready" && type != "done") {
    events::print(JsonObject().add("event", "bad_message").add("message", "unknown type \"" + type + "\""));
    return;
  }
  if (type == "done" && hooks_.onDone) hooks_.onDone();
  const std::lock_guard lock(mutex_);
  if (type == "ready") ready_ = true;
  if (type == "done") {
    done_ = true;
    outstanding_.clear(); // every page is there, so every request is answered
  }
  changed_.notify_all();
  events::print(JsonObject().add("event", type).add("at_ns", monotonicNs()));
}

void AgentChannel::onAnswers(const std::vector<Stage2Answer> &answers) {
  for (const Stage2Answer &answer : answers)
    for (uint64_t at = answer.offset; at < answer.offset + answer.len; at += kPageBytes) hooks_.onAnswered(at);
  const std::lock_guard lock(mutex_);
  for (const Stage2Answer &answer : answers) {
    // Unknown where a pause left the request behind.
    const auto asked = std::find_if(outstanding_.begin(), outstanding_.end(), [&](const auto &one) {
      const auto &[id, fault] = one;
      if (answer.id) return id == *answer.id;
      return fault.vcpu == answer.vcpu && layout_.offset(fault.region, fault.page) == answer.offset;
    });
    if (asked == outstanding_.end()) continue;
    const uint64_t offset = layout_.offset(asked->second.region, asked->second.page);
    if (offset < answer.offset || offset >= answer.offset + answer.len)
      events::failNow(exit_code::memoryGone, "BAD_MESSAGE",
                      text("asked for the page at %lu, the answer is for %lu", offset, answer.offset));
    outstanding_.erase(asked);
  }
  changed_.notify_all();
}

void AgentChannel::waitReady(uint64_t timeoutMs) {
  std::unique_lock lock(mutex_);
  const bool told = changed_.wait_for(lock, std::chrono::milliseconds(timeoutMs), [this] { return ready_ || closed_; });
  if (ready_) return;
  if (!told) fail("the agent did not say `ready` in %lu ms", timeoutMs);
  fail("the agent closed the channel before `ready`: it refused the handshake (its log says why)");
}

void AgentChannel::sendAll(const std::string &text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = send(socket_.get(), text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return; // the reader sees the end and says so
    at += static_cast<size_t>(n);
  }
}

/** Who finds another sending leaves its request to whoever is next: what came together goes together. */
void AgentChannel::sendRequests() {
  const std::lock_guard sending(sendMutex_);
  std::vector<Stage2Request> requests;
  std::unique_lock lock(mutex_);
  for (const uint64_t id : unsent_)
    if (const auto found = outstanding_.find(id); found != outstanding_.end()) requests.push_back({id, found->second});
  unsent_.clear();
  lock.unlock();
  for (size_t at = 0; at < requests.size(); at += kMaxBatch) {
    const auto first = requests.begin() + static_cast<ptrdiff_t>(at);
    const std::vector<Stage2Request> some(first, first + static_cast<ptrdiff_t>(std::min(kMaxBatch, requests.size() - at)));
    sendAll(manner_.secretFree ? requestObjects(some, layout_) : requestLine(some, layout_, manner_.withGpa));
    if (some.size() > 1) batches_++;
  }
}

Stage2Outcome AgentChannel::resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting) {
  std::unique_lock lock(mutex_);
  if (done_) return Stage2Outcome::resolved;
  const uint64_t id = nextId_++;
  outstanding_.emplace(id, fault);
  unsent_.push_back(id);
  lock.unlock();
  sendRequests();
  lock.lock();
  // A pause leaves the request behind: after resuming the guest faults again and asks under a new id.
  while (outstanding_.contains(id) && !stopWaiting) changed_.wait_for(lock, std::chrono::milliseconds(20));
  return outstanding_.erase(id) > 0 ? Stage2Outcome::paused : Stage2Outcome::resolved;
}

std::string AgentChannel::phase() {
  const std::lock_guard lock(mutex_);
  return done_ ? "done" : closed_ ? "agent_gone" : ready_ ? "ready" : "handed_over";
}

} // namespace testvmm
