// Unix sockets and the descriptors that travel on them, without JavaScript.
#pragma once

#include <sys/types.h>

#include <span>
#include <string>

#include "unique_fd.h"

namespace pagewake::net {

// As many as a VMM hands over, with room; the kernel itself would take 253.
inline constexpr size_t kMaxFds = 16;

// Non-blocking, closed on exec. Not open with errno set where it failed: ENAMETOOLONG; EADDRINUSE where somebody listens
// there, or what stands there is no socket. A socket file that nobody listens on is removed first. Mode 0600 from the start.
UniqueFd listen_at(const std::string& path);
// ECONNREFUSED, ENOENT; EAGAIN where the listener's queue is full.
UniqueFd connect_to(const std::string& path);

// Bytes, 0 at the end of the stream, or a negative errno. The descriptors that came along, closed on exec, are the caller's;
// where some were cut off (-EMSGSIZE: too many, or none left in this process) all are closed.
ssize_t receive(int fd, std::span<uint8_t> into, std::span<int, kMaxFds> fds, size_t& fdCount);

// Bytes, or a negative errno. The descriptors go with the first byte; they stay the caller's.
ssize_t send(int fd, std::span<const uint8_t> data, std::span<const int> fds);

}  // namespace pagewake::net
