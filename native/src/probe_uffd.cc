#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "kernel_abi.h"
#include "probe.h"
#include "scratch.h"
#include "uffd_calls.h"

namespace pagewake::probe {

namespace {

UniqueFd open_any(bool userModeOnly) {
  UniqueFd fd = uffd::open_by_syscall(userModeOnly);
  return fd.open() ? std::move(fd) : uffd::open_by_device(userModeOnly);
}

int handshake(int fd, uint64_t features) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  return ::ioctl(fd, UFFDIO_API, &api) == 0 ? 0 : errno;
}

int register_range(int fd, const Scratch& memory, uint64_t mode) {
  uffdio_register argument{};
  argument.range = {memory.address(), memory.size()};
  argument.mode = mode;
  return ::ioctl(fd, UFFDIO_REGISTER, &argument) == 0 ? 0 : errno;
}

int error_of(const Outcome& outcome) {
  switch (outcome.kind) {
    case OutcomeKind::done:
      return 0;
    case OutcomeKind::refused:
      return outcome.error;
    case OutcomeKind::absent:
      return EFAULT;
    case OutcomeKind::present:
      return EEXIST;
    default:
      return EAGAIN;
  }
}

// A registered memfd mapping of four pages. Nobody touches a page of it that was not installed: this thread would wait for itself.
class Trapped {
 public:
  Trapped(uint64_t features, uint64_t mode)
      : fd_(open_any(false)), file_(scratch_file(4 * kPageBytes)), memory_(file_.get(), 4 * kPageBytes) {
    if (!fd_.open()) fd_ = open_any(true);
    if (!fd_.open()) {
      error_ = EPERM;
    } else if (!file_.open() || !memory_.valid()) {
      error_ = ENOMEM;
    } else if ((error_ = handshake(fd_.get(), features)) == 0) {
      error_ = register_range(fd_.get(), memory_, mode);
    }
  }

  int error() const { return error_; }
  int fd() const { return fd_.get(); }
  int file() const { return file_.get(); }
  const Scratch& memory() const { return memory_; }
  void close() { fd_.reset(); }

 private:
  UniqueFd fd_;
  UniqueFd file_;
  Scratch memory_;
  int error_ = 0;
};

Capability missing_on_memfd() {
  const char* name = "MISSING on memfd";
  const Trapped trap(abi::kFeatureMissingShmem, UFFDIO_REGISTER_MODE_MISSING);
  if (trap.error() != 0) return {name, false, answer("UFFDIO_REGISTER(MISSING)", trap.error())};
  uint8_t page[kPageBytes];
  std::memset(page, 0x5a, sizeof page);
  const Outcome outcome = uffd::copy(trap.fd(), trap.memory().address(), page, sizeof page, true);
  const bool right = outcome.kind == OutcomeKind::done && *trap.memory().bytes() == 0x5a;
  return {name, right, answer("UFFDIO_COPY", error_of(outcome))};
}

Capability zeropage_on_memfd() {
  const char* name = "ZEROPAGE on memfd";
  const Trapped trap(abi::kFeatureMissingShmem, UFFDIO_REGISTER_MODE_MISSING);
  if (trap.error() != 0) return {name, false, answer("UFFDIO_REGISTER(MISSING)", trap.error())};
  const Outcome outcome = uffd::zeropage(trap.fd(), trap.memory().address(), kPageBytes);
  return {name, outcome.kind == OutcomeKind::done, answer("UFFDIO_ZEROPAGE", error_of(outcome))};
}

void minor_on_memfd(std::vector<Capability>& rows) {
  const Trapped trap(abi::kFeatureMissingShmem | abi::kFeatureMinorShmem,
                     UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
  rows.push_back({"MINOR on memfd", trap.error() == 0, answer("UFFDIO_REGISTER(MISSING | MINOR)", trap.error())});
  if (trap.error() != 0) {
    rows.push_back({"UFFDIO_CONTINUE", false, "needs MINOR on memfd"});
    return;
  }
  uint8_t page[kPageBytes];
  std::memset(page, 0x5a, sizeof page);
  const int wrote = ::pwrite(trap.file(), page, sizeof page, 0) == static_cast<ssize_t>(sizeof page) ? 0 : errno;
  const Outcome outcome = uffd::continue_pages(trap.fd(), trap.memory().address(), kPageBytes);
  const bool right = wrote == 0 && outcome.kind == OutcomeKind::done && *trap.memory().bytes() == 0x5a;
  rows.push_back({"UFFDIO_CONTINUE", right, answer("of a page written to the memfd", error_of(outcome))});
}

Capability poison() {
  const char* name = "UFFDIO_POISON";
  const Trapped trap(abi::kFeatureMissingShmem, UFFDIO_REGISTER_MODE_MISSING);
  if (trap.error() != 0) return {name, false, answer("UFFDIO_REGISTER(MISSING)", trap.error())};
  // Marked only: touching it would be a SIGBUS.
  const Outcome outcome = uffd::poison(trap.fd(), trap.memory().address(), kPageBytes);
  return {name, outcome.kind == OutcomeKind::done, answer("of an absent page", error_of(outcome))};
}

// madvise() waits until its event is read: hence the thread.
Capability remove_event() {
  const char* name = "EVENT_REMOVE";
  Trapped trap(abi::kFeatureMissingShmem | abi::kFeatureEventRemove, UFFDIO_REGISTER_MODE_MISSING);
  if (trap.error() != 0) return {name, false, answer("UFFDIO_API(EVENT_REMOVE), UFFDIO_REGISTER", trap.error())};
  pthread_t thread;
  void* memory = const_cast<uint8_t*>(trap.memory().bytes());
  const auto give_back = [](void* at) -> void* {
    ::madvise(at, kPageBytes, MADV_DONTNEED);
    return nullptr;
  };
  const int error = pthread_create(&thread, nullptr, give_back, memory);
  if (error != 0) return {name, false, answer("a thread", error)};
  pollfd poll{trap.fd(), POLLIN, 0};
  uffd_msg message{};
  const bool readable = ::poll(&poll, 1, 1000) == 1;
  const int count = readable ? uffd::read_messages(trap.fd(), &message, 1) : 0;
  // Lets the thread go in any case: with the last descriptor every wait ends.
  trap.close();
  pthread_join(thread, nullptr);
  const bool right = count == 1 && message.event == UFFD_EVENT_REMOVE && message.arg.remove.start == trap.memory().address();
  return {name, right, right ? "madvise(MADV_DONTNEED) was reported" : "madvise(MADV_DONTNEED) was not reported within 1 s"};
}

}  // namespace

void userfaultfd(std::vector<Capability>& rows) {
  const UniqueFd bySyscall = uffd::open_by_syscall(false);
  const int syscallError = bySyscall.open() ? 0 : errno;
  const UniqueFd userMode = uffd::open_by_syscall(true);
  const int userModeError = userMode.open() ? 0 : errno;
  rows.push_back({"userfaultfd by syscall", userMode.open(), answer("userfaultfd(UFFD_USER_MODE_ONLY)", userModeError)});
  const UniqueFd byDevice = uffd::open_by_device(false);
  const int deviceError = byDevice.open() ? 0 : errno;
  rows.push_back({"userfaultfd by /dev/userfaultfd", byDevice.open(), answer("open and USERFAULTFD_IOC_NEW", deviceError)});
  rows.push_back({"faults of the kernel (stage 2)", bySyscall.open() || byDevice.open(),
                  answer("userfaultfd without UFFD_USER_MODE_ONLY", syscallError) +
                      (bySyscall.open() || !byDevice.open() ? "" : "; by /dev/userfaultfd: done")});
  rows.push_back(missing_on_memfd());
  minor_on_memfd(rows);
  rows.push_back(zeropage_on_memfd());
  rows.push_back(poison());
  rows.push_back(remove_event());
}

}  // namespace pagewake::probe
