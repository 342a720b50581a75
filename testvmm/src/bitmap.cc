#include "bitmap.h"

#include <fcntl.h>

#include <bit>

#include "failure.h"

namespace testvmm {

UserfaultBitmap::UserfaultBitmap(uint64_t pages)
    : pages_(pages), file_(memfd_create("userfault-bitmap", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
  const uint64_t bytes = (pages + 63) / 64 * 8;
  if (!file_) failErrno("memfd_create of the bitmap");
  if (ftruncate(file_.get(), static_cast<off_t>(bytes)) != 0) failErrno("bitmap of %lu bytes", bytes);
  if (fcntl(file_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) failErrno("sealing the bitmap");
  void *address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
  if (address == MAP_FAILED) failErrno("mapping the bitmap");
  mapping_ = Mapping(address, bytes);
}

void UserfaultBitmap::fill() {
  for (uint64_t page = 0; page < pages_; page += 8) {
    const uint64_t left = pages_ - page;
    const auto byte = static_cast<uint8_t>(left < 8 ? (1u << left) - 1 : 0xffu);
    __atomic_store_n(mapping_.data() + page / 8, byte, __ATOMIC_RELEASE);
  }
}

bool UserfaultBitmap::isSet(uint64_t page) const {
  return (__atomic_load_n(mapping_.data() + page / 8, __ATOMIC_ACQUIRE) & (1u << page % 8)) != 0;
}

uint64_t UserfaultBitmap::countSet() const {
  uint64_t set = 0;
  for (size_t i = 0; i < mapping_.bytes(); i++)
    set += static_cast<uint64_t>(std::popcount(__atomic_load_n(mapping_.data() + i, __ATOMIC_ACQUIRE)));
  return set;
}

} // namespace testvmm
