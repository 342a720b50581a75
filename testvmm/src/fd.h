// Owners of descriptors and mappings.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace testvmm {

class Fd {
public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd &operator=(Fd &&other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

private:
  int fd_ = -1;
};

class Mapping {
public:
  Mapping() = default;
  Mapping(void *address, size_t bytes) : address_(static_cast<uint8_t *>(address)), bytes_(bytes) {}
  Mapping(Mapping &&other) noexcept : address_(std::exchange(other.address_, nullptr)), bytes_(other.bytes_) {}
  Mapping &operator=(Mapping &&other) noexcept {
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping() {
    if (address_ != nullptr) munmap(address_, bytes_);
  }
  uint8_t *data() const { return address_; }
  size_t bytes() const { return bytes_; }

private:
  uint8_t *address_ = nullptr;
  size_t bytes_ = 0;
};

} // namespace testvmm
