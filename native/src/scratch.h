// A mapping to try things on.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "unique_fd.h"

namespace pagewake {

inline constexpr uint64_t kPageBytes = 4096;

// A memfd of that size; not open where there is none to be had.
inline UniqueFd scratch_file(size_t size) {
  UniqueFd fd(::memfd_create("pagewake-probe", MFD_CLOEXEC));
  if (fd.open() && ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) fd.reset();
  return fd;
}

class Scratch {
 public:
  // Private anonymous memory for descriptor -1, else the file, shared.
  Scratch(int fd, size_t size) : size_(size) {
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at == MAP_FAILED) {
      error_ = errno;
    } else {
      bytes_ = static_cast<volatile uint8_t*>(at);
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (bytes_ != nullptr) ::munmap(const_cast<uint8_t*>(bytes_), size_);
  }

  bool valid() const { return bytes_ != nullptr; }
  int error() const { return error_; }
  volatile uint8_t* bytes() const { return bytes_; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(bytes_); }
  size_t size() const { return size_; }

 private:
  volatile uint8_t* bytes_ = nullptr;
  size_t size_;
  int error_ = 0;
};

}  // namespace pagewake
