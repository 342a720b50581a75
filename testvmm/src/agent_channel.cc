#include "agent_channel.h"

#include <sys/socket.h>

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
} // namespace

AgentChannel::AgentChannel(const std::string &path, const Layout &layout, Manner manner, Hooks hooks)
    : path_(path), layout_(layout), manner_(manner), hooks_(std::move(hooks)),
      socket_(manner.byAnother ? connectUnixByAnother(path, "agent's") : connectUnix(path, "agent's")) {}

void AgentChannel::handshake(Handshake text, const std::vector<int> &fds) {
  text_ = std::move(text);
  fds_ = fds;
  sendHandshake(false);
  std::thread([this] { run(); }).detach(); // the channel lives as long as the program
}

void AgentChannel::sendHandshake(bool live) {
  const std::string json = text_(live);
  const size_t first = manner_.inParts ? json.size() / 2 : json.size();
  iovec part{const_cast<char *>(json.data()), first};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(fds_.size() * sizeof(int));
  cmsghdr *const head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(fds_.size() * sizeof(int));
  memcpy(CMSG_DATA(head), fds_.data(), fds_.size() * sizeof(int));
  const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  if (sent < 0) failErrno("handing memory to the agent");
  if (sent != static_cast<ssize_t>(first)) fail("handing memory to the agent: %zd of %zu bytes taken", sent, first);
  if (first == json.size()) return;
  std::this_thread::sleep_for(std::chrono::milliseconds(kBetweenPartsMs));
  const ssize_t rest = send(socket_.get(), json.data() + first, json.size() - first, MSG_NOSIGNAL);
  if (rest != static_cast<ssize_t>(json.size() - first)) failErrno("handing memory to the agent");
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
      back = true;
    } catch (const Failure &) {
      continue; // not there yet, or gone again
    }
  }
  events::print(JsonObject().add("event", "handed_over").add("again", true).add("at_ns", monotonicNs()));
  std::unique_lock lock(mutex_);
  const auto unanswered = outstanding_;
  lock.unlock();
  for (const auto &[id, fault] : unanswered) ask(id, fault);
}

void AgentChannel::readMessages() {
  std::string buffer;
  char chunk[4096];
  for (;;) {
    const ssize_t n = recv(socket_.get(), chunk, sizeof chunk, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    buffer.append(chunk, static_cast<size_t>(n));
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
  if (type != "held" && type != "ready" && type != "done" && type != "resolved") {
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
  if (type == "resolved") outstanding_.erase(std::strtoull(message["id"].c_str(), nullptr, 10));
  changed_.notify_all();
  if (type != "resolved") events::print(JsonObject().add("event", type).add("at_ns", monotonicNs()));
}

void AgentChannel::waitReady(uint64_t timeoutMs) {
  std::unique_lock lock(mutex_);
  const bool told = changed_.wait_for(lock, std::chrono::milliseconds(timeoutMs), [this] { return ready_ || closed_; });
  if (ready_) return;
  if (!told) fail("the agent did not say `ready` in %lu ms", timeoutMs);
  fail("the agent closed the channel before `ready`: it refused the handshake (its log says why)");
}

void AgentChannel::sendLine(const std::string &line) {
  const std::lock_guard lock(sendMutex_);
  const std::string whole = line + "\n";
  for (size_t at = 0; at < whole.size();) {
    const ssize_t n = send(socket_.get(), whole.data() + at, whole.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return; // the reader sees the end and says so
    at += static_cast<size_t>(n);
  }
}

void AgentChannel::ask(uint64_t id, const Stage2Fault &fault) {
  sendLine(JsonObject()
               .add("type", "stage2_fault")
               .add("id", id)
               .add("vcpu", fault.vcpu)
               .add("offset", layout_.offset(fault.region, fault.page))
               .add("flags", fault.write ? 1 : 0)
               .str());
}

Stage2Outcome AgentChannel::resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting) {
  std::unique_lock lock(mutex_);
  if (done_) return Stage2Outcome::resolved;
  const uint64_t id = nextId_++;
  outstanding_.emplace(id, fault);
  lock.unlock();
  ask(id, fault);
  lock.lock();
  // A pause leaves the request behind: after resuming the guest faults again and asks under a new id.
  while (outstanding_.contains(id) && !stopWaiting) changed_.wait_for(lock, std::chrono::milliseconds(20));
  if (outstanding_.erase(id) > 0) return Stage2Outcome::paused;
  lock.unlock();
  if (hooks_.onResolved) hooks_.onResolved(fault);
  return Stage2Outcome::resolved;
}

std::string AgentChannel::phase() {
  const std::lock_guard lock(mutex_);
  return done_ ? "done" : closed_ ? "agent_gone" : ready_ ? "ready" : "handed_over";
}

} // namespace testvmm
