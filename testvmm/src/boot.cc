#include "boot.h"

#include <cstring>

#include "failure.h"

// Bounds of the section that guest.cc is compiled into; the linker makes these two.
extern "C" const uint8_t __start_guest_code[], __stop_guest_code[];

namespace testvmm {

static_assert(BootSlot::kContexts + (kMaxVcpus + 1) * kPageBytes <= BootSlot::kStacks);
static_assert(BootSlot::kStacks + kMaxVcpus * kPageBytes <= BootSlot::kDirectories);

BootSlot::BootSlot() {
  void *address = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) failErrno("boot slot");
  memory_ = Mapping(address, kBytes);
}

uint64_t BootSlot::entryGpa() {
  const auto entry = reinterpret_cast<uintptr_t>(&testvmm_guest);
  return kCode + (entry - reinterpret_cast<uintptr_t>(__start_guest_code));
}

void BootSlot::writeCode() {
  const size_t bytes = static_cast<size_t>(__stop_guest_code - __start_guest_code);
  if (bytes > kCodeEnd - kCode) fail("the guest's code (%zu bytes) does not fit its place", bytes);
  memcpy(data() + kCode, __start_guest_code, bytes);
}

void BootSlot::writePageTables(const Layout &layout) {
  constexpr uint64_t present = 1, writable = 2, user = 4, large = 0x80, table = present | writable | user;
  auto *const pml4 = reinterpret_cast<uint64_t *>(data() + kPml4);
  auto *const pdpt = reinterpret_cast<uint64_t *>(data() + kPdpt);
  uint64_t nextDirectory = kDirectories;
  pml4[0] = kPdpt | table;
  // Identity, in 2 MiB pages: the boot slot and every region; the guest addresses nothing else.
  const auto map = [&](uint64_t gpa, uint64_t bytes) {
    for (uint64_t at = gpa; at < gpa + bytes; at += 2ull << 20) {
      uint64_t &slot = pdpt[at >> 30];
      if (slot == 0) {
        slot = nextDirectory | table;
        nextDirectory += kPageBytes;
      }
      auto *const directory = reinterpret_cast<uint64_t *>(data() + (slot & ~0xfffull));
      directory[(at >> 21) & 511] = at | table | large;
    }
  };
  map(0, kBytes);
  for (uint64_t i = 0; i < layout.regions; i++) map(layout.gpa(i), layout.regionBytes);
}

} // namespace testvmm
