#include "control.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <sstream>
#include <thread>

#include "events.h"
#include "failure.h"

namespace testvmm {
namespace {

constexpr size_t kMaxLineBytes = 64 << 10;

sockaddr_un addressOf(const std::string &path, const char *whose) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    fail("%s socket path: 1 to %zu bytes, not %zu: %s", whose, sizeof address.sun_path - 1, path.size(), path.c_str());
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int connectTo(const Fd &fd, const sockaddr_un &address) {
  return connect(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address);
}

void sendLine(int fd, const std::string &line) {
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = send(fd, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return; // the client left
    done += static_cast<size_t>(n);
  }
}

Reply answer(const CommandHandler &handler, const std::string &line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  try {
    return handler(words);
  } catch (const std::exception &failure) {
    return {JsonObject().add("ok", false).add("error", failure.what()).str()};
  }
}

void serveConnection(const Fd &connection, const CommandHandler &handler) {
  std::string buffer;
  char chunk[4096];
  for (;;) {
    const ssize_t n = recv(connection.get(), chunk, sizeof chunk, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    buffer.append(chunk, static_cast<size_t>(n));
    for (size_t end; (end = buffer.find('\n')) != std::string::npos; buffer.erase(0, end + 1)) {
      const Reply reply = answer(handler, buffer.substr(0, end));
      sendLine(connection.get(), reply.json + "\n");
      if (reply.exitCode) events::exitNow(*reply.exitCode);
    }
    if (buffer.size() > kMaxLineBytes) return;
  }
}

} // namespace

Fd connectUnix(const std::string &path, const char *whose) {
  const sockaddr_un address = addressOf(path, whose);
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) failErrno("socket");
  if (connectTo(fd, address) != 0) failErrno("connecting to the %s socket %s", whose, path.c_str());
  return fd;
}

Fd connectUnixByAnother(const std::string &path, const char *whose) {
  const sockaddr_un address = addressOf(path, whose);
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int ends[2];
  if (!fd || pipe2(ends, O_CLOEXEC) != 0) failErrno("socket or pipe");
  const Fd told(ends[0]), tell(ends[1]);
  const pid_t self = getpid();
  // A fork with one table of descriptors, in which the child connects our socket; then it has an empty one of its own. Other
  // threads may hold locks: nothing but system calls until its end.
  const long child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (child < 0) failErrno("clone");
  if (child == 0) {
    const int error = connectTo(fd, address) == 0 ? 0 : errno;
    const bool said = write(tell.get(), &error, sizeof error) == sizeof error;
    syscall(SYS_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE);
    while (said && error == 0 && getppid() == self) usleep(20'000);
    _exit(0);
  }
  int error = 0;
  if (read(told.get(), &error, sizeof error) != sizeof error) failErrno("the process that connects");
  errno = error;
  if (error != 0) failErrno("connecting to the %s socket %s", whose, path.c_str());
  return fd;
}

Fd listenControl(const std::string &path) {
  const sockaddr_un address = addressOf(path, "control");
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) failErrno("socket");
  const auto bindIt = [&] { return bind(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0; };
  if (!bindIt()) {
    if (errno != EADDRINUSE) failErrno("--control %s", path.c_str());
    const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connectTo(probe, address) == 0) fail("--control %s: another program listens there", path.c_str());
    if (errno != ECONNREFUSED) failErrno("--control %s: it exists and is not a socket left behind", path.c_str());
    unlink(path.c_str());
    if (!bindIt()) failErrno("--control %s", path.c_str());
  }
  if (listen(fd.get(), 8) != 0) failErrno("--control %s", path.c_str());
  events::setSocketToUnlink(path);
  return fd;
}

void serveControl(Fd listener, CommandHandler handler) {
  std::thread([listener = std::move(listener), handler = std::move(handler)] {
    for (;;) {
      Fd connection(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!connection) {
        if (errno == EMFILE || errno == ENFILE) usleep(10'000);
        continue;
      }
      std::thread([connection = std::move(connection), handler] { serveConnection(connection, handler); }).detach();
    }
  }).detach();
}

} // namespace testvmm
