#include "events.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "failure.h"

namespace testvmm::events {
namespace {

struct Output {
  std::mutex mutex;
  std::string socket;
  bool quietHeartbeats = false;
};
/** Never destroyed: threads may print until the very end. */
Output &output() {
  static Output &instance = *new Output;
  return instance;
}

void writeAll(int fd, const std::string &line) {
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = write(fd, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return; // nobody reads any more: the work goes on
    done += static_cast<size_t>(n);
  }
}

} // namespace

void setQuietHeartbeats(bool quiet) { output().quietHeartbeats = quiet; }
void setSocketToUnlink(const std::string &path) { output().socket = path; }

void print(const JsonObject &event) {
  const std::lock_guard lock(output().mutex);
  writeAll(STDOUT_FILENO, event.str() + "\n");
}

void printHeartbeat(const JsonObject &event) {
  if (output().quietHeartbeats) return;
  const std::unique_lock lock(output().mutex, std::try_to_lock);
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  if (!lock || poll(&out, 1, 0) != 1 || (out.revents & POLLOUT) == 0) return;
  writeAll(STDOUT_FILENO, event.str() + "\n");
}

void waitForReason() {
  for (timespec left{1, 0}; nanosleep(&left, &left) != 0 && errno == EINTR;) continue;
}

void exitNow(int code) {
  if (!output().socket.empty()) unlink(output().socket.c_str());
  _exit(code);
}

void printFailed(const std::string &reason, const std::string &message) {
  print(JsonObject().add("event", "failed").add("reason", reason).add("message", message));
  writeAll(STDERR_FILENO, "testvmm: " + message + "\n");
}

void failNow(int code, const std::string &reason, const std::string &message) {
  printFailed(reason, message);
  exitNow(code);
}

} // namespace testvmm::events
