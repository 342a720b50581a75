#include "uffd_calls.h"

#include <sys/syscall.h>

#include <cerrno>
#include <type_traits>

#include "kernel_abi.h"

namespace pagewake::uffd {

namespace {

// The kernel leaves a signed number in the argument: bytes done, or a negative errno. It counts only where it is positive: a
// part-way stop is EAGAIN with the bytes done; a stop at the first page has 0 there (before Linux 6.15) or the errno.
template <class Argument, class Result>
Outcome range_call(Call call, int fd, unsigned long request, Argument& argument, Result Argument::*field, uint64_t length) {
  static_assert(std::is_signed_v<Result>, "bytes done or a negative errno");
  if (::ioctl(fd, request, &argument) == 0) return done(length);
  const int error = errno;
  const Result result = argument.*field;
  return stopped(call, error, result > 0 ? static_cast<uint64_t>(result) : 0);
}

}  // namespace

UniqueFd open_by_syscall(bool userModeOnly) {
  const int flags = O_CLOEXEC | O_NONBLOCK | (userModeOnly ? abi::kUffdUserModeOnly : 0);
  return UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, flags)));
}

UniqueFd open_by_device(bool userModeOnly) {
  UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (!device.open()) return device;
  const int flags = O_CLOEXEC | O_NONBLOCK | (userModeOnly ? abi::kUffdUserModeOnly : 0);
  UniqueFd fd(::ioctl(device.get(), abi::kUffdNew, flags));
  const int error = errno;  // closing the device must not hide it
  device.reset();
  errno = error;
  return fd;
}

Outcome copy(int fd, uint64_t address, const void* source, uint64_t length, bool wake) {
  uffdio_copy argument{};
  argument.dst = address;
  argument.src = reinterpret_cast<uint64_t>(source);
  argument.len = length;
  argument.mode = wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE;
  return range_call(Call::copy, fd, UFFDIO_COPY, argument, &uffdio_copy::copy, length);
}

Outcome zeropage(int fd, uint64_t address, uint64_t length) {
  uffdio_zeropage argument{};
  argument.range = {address, length};
  return range_call(Call::zeropage, fd, UFFDIO_ZEROPAGE, argument, &uffdio_zeropage::zeropage, length);
}

Outcome continue_pages(int fd, uint64_t address, uint64_t length) {
  uffdio_continue argument{};
  argument.range = {address, length};
  return range_call(Call::continuePage, fd, UFFDIO_CONTINUE, argument, &uffdio_continue::mapped, length);
}

Outcome poison(int fd, uint64_t address, uint64_t length) {
  abi::UffdPoison argument{};
  argument.range = {address, length};
  return range_call(Call::poison, fd, abi::kUffdPoison, argument, &abi::UffdPoison::updated, length);
}

Outcome wake(int fd, uint64_t address, uint64_t length) {
  uffdio_range range{address, length};
  return ::ioctl(fd, UFFDIO_WAKE, &range) == 0 ? done(length) : stopped(Call::wake, errno, 0);
}

Outcome unregister(int fd, uint64_t address, uint64_t length) {
  uffdio_range range{address, length};
  return ::ioctl(fd, UFFDIO_UNREGISTER, &range) == 0 ? done(length) : stopped(Call::unregister, errno, 0);
}

int read_messages(int fd, uffd_msg* into, int capacity) {
  for (;;) {
    const ssize_t got = ::read(fd, into, static_cast<size_t>(capacity) * sizeof(uffd_msg));
    if (got >= 0) return static_cast<int>(static_cast<size_t>(got) / sizeof(uffd_msg));
    if (errno != EINTR) return -errno;
  }
}

}  // namespace pagewake::uffd
