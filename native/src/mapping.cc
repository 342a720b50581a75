#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "file_calls.h"

namespace pagewake::file {

namespace {

using Transfer = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);

// The bounds were checked against the file's size before: what still faults is a page that the file system has no memory for.
Outcome transfer(Call call, Transfer way, void* local, void* remote, size_t length) {
  uint64_t total = 0;
  while (total < length) {
    const iovec from{static_cast<uint8_t*>(local) + total, length - total};
    const iovec to{static_cast<uint8_t*>(remote) + total, length - total};
    const ssize_t moved = way(::getpid(), &from, 1, &to, 1, 0);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return stopped(call, moved < 0 && errno != EFAULT ? errno : ENOMEM, total);
    total += static_cast<uint64_t>(moved);
  }
  return done(total);
}

}  // namespace

int Mapping::map(int fd, uint64_t sizeBytes) {
  if (address_ != nullptr && sizeBytes == sizeBytes_) return 0;
  unmap();
  if (sizeBytes == 0) return EINVAL;
  void* address = ::mmap(nullptr, sizeBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  // Opened for reading only.
  if (address == MAP_FAILED && errno == EACCES) address = ::mmap(nullptr, sizeBytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (address == MAP_FAILED) return errno;
  address_ = address;
  sizeBytes_ = sizeBytes;
  return 0;
}

void Mapping::unmap() {
  if (address_ != nullptr) ::munmap(address_, sizeBytes_);
  address_ = nullptr;
}

Outcome Mapping::store(std::span<const uint8_t> source, uint64_t offset) {
  return transfer(Call::store, ::process_vm_writev, const_cast<uint8_t*>(source.data()), static_cast<uint8_t*>(address_) + offset,
                  source.size());
}

Outcome Mapping::load(std::span<uint8_t> into, uint64_t offset) {
  return transfer(Call::load, ::process_vm_readv, into.data(), static_cast<uint8_t*>(address_) + offset, into.size());
}

}  // namespace pagewake::file
