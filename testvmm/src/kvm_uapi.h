// Kernel interfaces that are younger than the headers of the distributions this builds on. Numbers: docs/kernel.md.
#pragma once
#include <linux/ioctl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>

#include <cstdint>

#include "guest_context.h"

namespace testvmm {

/** struct kvm_cpuid2: in C++ some headers give its flexible array an empty member of size 1, which changes size and
 * ioctl number. */
struct CpuidHead {
  uint32_t entries, padding;
};
struct Cpuid {
  static constexpr uint32_t kMaxEntries = 256;
  CpuidHead head;
  kvm_cpuid_entry2 entries[kMaxEntries];
};
inline constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, CpuidHead);
inline constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, CpuidHead);
static_assert(kGetSupportedCpuid == 0xc008ae05 && kSetCpuid2 == 0x4008ae90);

inline constexpr int kCapGuestMemfd = 234;
inline constexpr uint32_t kMemGuestMemfd = 1u << 2;
inline constexpr uint64_t kGuestMemfdMmap = 1, kGuestMemfdInitShared = 2;
// Of kernels that have the whole design; no mainline one yet.
inline constexpr uint64_t kGuestMemfdWrite = 1u << 3;
inline constexpr uint32_t kMemUserfault = 1u << 3;
inline constexpr uint64_t kMemoryExitUserfault = 1u << 4;

/** What kvm_run holds behind its common part after KVM_EXIT_MEMORY_FAULT. */
inline constexpr uint32_t kExitMemoryFault = 39;
struct MemoryFault {
  uint64_t flags, gpa, size;
};

struct MemoryRegion2 {
  uint32_t slot, flags;
  uint64_t gpa, size, userAddress, guestMemfdOffset;
  uint32_t guestMemfd, pad1;
  /** With kMemUserfault: the address of the byte of the slot's first page. */
  uint64_t userfaultBitmap;
  uint64_t pad2[13];
};
static_assert(sizeof(MemoryRegion2) == 160);
inline constexpr unsigned long kSetUserMemoryRegion2 = _IOW(KVMIO, 0x49, MemoryRegion2);
static_assert(kSetUserMemoryRegion2 == 0x40a0ae49);

struct CreateGuestMemfd {
  uint64_t size, flags, reserved[6];
};
inline constexpr unsigned long kCreateGuestMemfd = _IOWR(KVMIO, 0xd4, CreateGuestMemfd);
static_assert(kCreateGuestMemfd == 0xc040aed4);

inline constexpr uint64_t kUffdFeaturePoison = 1u << 14;
inline constexpr unsigned long kDevUserfaultfdNew = _IO(0xaa, 0x00);
inline constexpr unsigned kUffdUserModeOnly = 1;

} // namespace testvmm
