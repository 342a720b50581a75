#include "file_calls.h"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "kernel_abi.h"

namespace pagewake::file {

namespace {

constexpr size_t kMaxVectors = 64;

// One pwritev, repeated until all is written or the file refuses: a short write stops at a page that does, and the next call
// says why. Adds what was written to `total`; 0 or an errno.
int write_vectors(int fd, std::span<iovec> vectors, uint64_t fileOffset, uint64_t& total) {
  while (!vectors.empty()) {
    const ssize_t result = ::pwritev(fd, vectors.data(), static_cast<int>(vectors.size()), static_cast<off_t>(fileOffset));
    if (result < 0 && errno == EINTR) continue;
    if (result <= 0) return result < 0 ? errno : EIO;
    auto wrote = static_cast<size_t>(result);
    total += wrote;
    fileOffset += wrote;
    while (!vectors.empty() && wrote >= vectors.front().iov_len) {
      wrote -= vectors.front().iov_len;
      vectors = vectors.subspan(1);
    }
    if (wrote > 0) {
      vectors.front().iov_base = static_cast<uint8_t*>(vectors.front().iov_base) + wrote;
      vectors.front().iov_len -= wrote;
    }
  }
  return 0;
}

}  // namespace

// Of no bytes: the kernel looks at the descriptor's mode (EBADF, ESPIPE) and asks the file (EINVAL), which finds nothing to do.
bool writable(int fd) {
  const uint8_t nothing = 0;
  return ::pwrite(fd, &nothing, 0, 0) == 0;
}

Outcome write(int fd, std::span<const uint8_t> source, uint64_t fileOffset) {
  const WriteRun run{source.data(), source.size(), fileOffset};
  return write_runs(fd, {&run, 1});
}

Outcome write_runs(int fd, std::span<const WriteRun> runs) {
  uint64_t total = 0;
  for (size_t next = 0; next < runs.size();) {
    iovec vectors[kMaxVectors];
    size_t count = 0;
    const uint64_t start = runs[next].fileOffset;
    for (uint64_t end = start; next < runs.size() && count < kMaxVectors && runs[next].fileOffset == end; next++) {
      end += runs[next].length;
      if (runs[next].length == 0) continue;
      vectors[count++] = {const_cast<uint8_t*>(runs[next].source), static_cast<size_t>(runs[next].length)};
    }
    const int error = write_vectors(fd, {vectors, count}, start, total);
    if (error != 0) return stopped(Call::write, error, total);
  }
  return done(total);
}

Outcome read(int fd, std::span<uint8_t> into, uint64_t fileOffset) {
  uint64_t total = 0;
  while (total < into.size()) {
    const ssize_t got = ::pread(fd, into.data() + total, into.size() - total, static_cast<off_t>(fileOffset + total));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return stopped(Call::read, errno, total);
    if (got == 0) return stopped(Call::read, EFAULT, total);
    total += static_cast<uint64_t>(got);
  }
  return done(total);
}

Outcome punch(int fd, uint64_t offset, uint64_t length) {
  while (::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
    if (errno != EINTR) return stopped(Call::punch, errno, 0);
  }
  return done(length);
}

std::optional<ByteRun> next_data(int fd, uint64_t offset, uint64_t end) {
  if (offset >= end) return std::nullopt;
  const off_t data = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return std::nullopt;
  if (data < 0) return ByteRun{offset, end - offset};
  const auto first = static_cast<uint64_t>(data);
  if (first >= end) return std::nullopt;
  const off_t hole = ::lseek(fd, data, SEEK_HOLE);
  const uint64_t stop = hole < 0 || static_cast<uint64_t>(hole) > end ? end : static_cast<uint64_t>(hole);
  return ByteRun{first, stop - first};
}

int64_t size(int fd) {
  struct stat status{};
  return ::fstat(fd, &status) == 0 ? static_cast<int64_t>(status.st_size) : -errno;
}

const char* kind(int fd) {
  char link[64];
  char target[256] = {};
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (::readlink(link, target, sizeof target - 1) > 0 &&
      (std::strstr(target, "[kvm-gmem]") != nullptr || std::strstr(target, "[guest_memfd]") != nullptr)) {
    return "guest_memfd";
  }
  struct stat status{};
  struct statfs system{};
  if (::fstat(fd, &status) != 0 || ::fstatfs(fd, &system) != 0) return "other";
  if (system.f_type == abi::kGuestMemfdMagic) return "guest_memfd";
  if (!S_ISREG(status.st_mode)) return "other";
  if (system.f_type == TMPFS_MAGIC) return "memfd-or-shmem";
  if (system.f_type == HUGETLBFS_MAGIC) return "hugetlbfs";
  return "regular";
}

GuestMemfd create_guest_memfd(uint64_t sizeBytes, uint64_t flags) {
  GuestMemfd result;
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm.open()) {
    result.error = errno;
    result.call = "/dev/kvm";
    result.hint = "guest_memfd needs KVM: load its module and give the agent access to /dev/kvm";
    return result;
  }
  result.vm.reset(::ioctl(kvm.get(), KVM_CREATE_VM, 0));
  if (!result.vm.open()) {
    result.error = errno;
    result.call = "KVM_CREATE_VM";
    return result;
  }
  abi::CreateGuestMemfd argument{sizeBytes, flags, {}};
  result.fd.reset(::ioctl(result.vm.get(), abi::kKvmCreateGuestMemfd, &argument));
  if (!result.fd.open()) {
    result.error = errno;
    result.call = "KVM_CREATE_GUEST_MEMFD";
    result.hint = result.error == ENOTTY ? "this kernel has no guest_memfd" : "this kernel does not know these flags, or the size is not whole pages";
  }
  return result;
}

}  // namespace pagewake::file
