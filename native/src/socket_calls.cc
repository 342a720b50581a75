#include "socket_calls.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace pagewake::net {

namespace {

constexpr int kBacklog = 16;

bool address_of(const std::string& path, sockaddr_un& address) {
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    errno = path.empty() ? EINVAL : ENAMETOOLONG;
    return false;
  }
  address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

UniqueFd stream_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }

const sockaddr* generic(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

// A socket file whose listener is gone refuses connections. Anything else is left alone.
bool is_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const UniqueFd probe = stream_socket();
  return probe.open() && ::connect(probe.get(), generic(address), sizeof address) != 0 && errno == ECONNREFUSED;
}

}  // namespace

UniqueFd listen_at(const std::string& path) {
  sockaddr_un address;
  if (!address_of(path, address)) return UniqueFd();
  UniqueFd fd = stream_socket();
  // On Linux the socket's own mode is that of the file bind() makes: there is no moment in which others may connect, and no umask,
  // which all threads share, is touched.
  if (!fd.open() || ::fchmod(fd.get(), 0600) != 0) return UniqueFd();
  int bound = ::bind(fd.get(), generic(address), sizeof address);
  if (bound != 0 && errno == EADDRINUSE) {
    if (is_stale(path, address) && ::unlink(path.c_str()) == 0) {
      bound = ::bind(fd.get(), generic(address), sizeof address);
    } else {
      errno = EADDRINUSE;
    }
  }
  if (bound != 0 || ::listen(fd.get(), kBacklog) != 0) {
    const int error = errno;
    fd.reset();
    errno = error;
  }
  return fd;
}

UniqueFd connect_to(const std::string& path) {
  sockaddr_un address;
  if (!address_of(path, address)) return UniqueFd();
  UniqueFd fd = stream_socket();
  if (fd.open() && ::connect(fd.get(), generic(address), sizeof address) != 0) {
    const int error = errno;
    fd.reset();
    errno = error;
  }
  return fd;
}

ssize_t receive(int fd, std::span<uint8_t> into, std::span<int, kMaxFds> fds, size_t& fdCount) {
  fdCount = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  iovec vector{into.data(), into.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && fdCount < kMaxFds; i++) {
      std::memcpy(&fds[fdCount++], CMSG_DATA(header) + i * sizeof(int), sizeof(int));
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    // Which one is missing cannot be told: none of them is worth anything.
    for (size_t i = 0; i < fdCount; i++) ::close(fds[i]);
    fdCount = 0;
    return -EMSGSIZE;
  }
  return got;
}

ssize_t send(int fd, std::span<const uint8_t> data, std::span<const int> fds) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  iovec vector{const_cast<uint8_t*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

}  // namespace pagewake::net
