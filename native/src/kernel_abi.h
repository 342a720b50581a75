// Kernel interfaces that are newer than the headers of the oldest distribution this builds on. Named apart from the kernel's
// macros, so that newer headers do not collide. Sizes and numbers are asserted: a wrong one must fail here, not in a guest.
#pragma once

#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <cstdint>

namespace pagewake::abi {

// linux/userfaultfd.h
inline constexpr unsigned kUffdNew = _IO(0xAA, 0x00);  // /dev/userfaultfd
inline constexpr int kUffdUserModeOnly = 1;

struct UffdPoison {
  uffdio_range range;
  uint64_t mode;
  int64_t updated;
};
inline constexpr unsigned long kUffdPoison = _IOWR(UFFDIO, 0x08, UffdPoison);

static_assert(sizeof(uffd_msg) == 32);
static_assert(UFFDIO_API == 0xc018aa3f && UFFDIO_REGISTER == 0xc020aa00 && UFFDIO_UNREGISTER == 0x8010aa01);
static_assert(UFFDIO_WAKE == 0x8010aa02 && UFFDIO_COPY == 0xc028aa03 && UFFDIO_ZEROPAGE == 0xc020aa04);
static_assert(UFFDIO_CONTINUE == 0xc020aa07 && kUffdPoison == 0xc020aa08);

inline constexpr uint64_t kFeatureEventRemove = 1 << 3;
inline constexpr uint64_t kFeatureMissingHugetlbfs = 1 << 4;
inline constexpr uint64_t kFeatureMissingShmem = 1 << 5;
inline constexpr uint64_t kFeatureThreadId = 1 << 8;
inline constexpr uint64_t kFeatureMinorShmem = 1 << 10;

// linux/kvm.h
struct CreateGuestMemfd {
  uint64_t size;
  uint64_t flags;
  uint64_t reserved[6];
};
struct UserspaceMemoryRegion2 {
  uint32_t slot;
  uint32_t flags;
  uint64_t guestPhysAddr;
  uint64_t memorySize;
  uint64_t userspaceAddr;
  uint64_t guestMemfdOffset;
  uint32_t guestMemfd;
  uint32_t pad1;
  uint64_t userfaultBitmap;  // out of tree; padding in mainline
  uint64_t pad2[13];
};
inline constexpr unsigned long kKvmCreateGuestMemfd = _IOWR(KVMIO, 0xd4, CreateGuestMemfd);
inline constexpr unsigned long kKvmSetUserMemoryRegion2 = _IOW(KVMIO, 0x49, UserspaceMemoryRegion2);
static_assert(kKvmCreateGuestMemfd == 0xc040aed4 && kKvmSetUserMemoryRegion2 == 0x40a0ae49);

inline constexpr uint32_t kMemSlotGuestMemfd = 1 << 2;
inline constexpr uint32_t kMemSlotUserfault = 1 << 3;  // out of tree
// A part of struct kvm_run, at `padding`.
struct MemoryFault {
  uint64_t flags;
  uint64_t gpa;
  uint64_t size;
};
inline constexpr uint32_t kExitMemoryFault = 39;
inline constexpr uint64_t kMemoryExitUserfault = 1 << 4;  // out of tree
inline constexpr uint64_t kGuestMemfdMmap = 1 << 0;
inline constexpr uint64_t kGuestMemfdInitShared = 1 << 1;
inline constexpr uint64_t kGuestMemfdWrite = 1 << 3;  // out of tree
inline constexpr long kGuestMemfdMagic = 0x474d454d;

// linux/fs.h
struct PageRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
struct PagemapScan {
  uint64_t size, flags, start, end, walkEnd, vec, vecLen, maxPages;
  uint64_t categoryInverted, categoryMask, categoryAnyOfMask, returnMask;
};
static_assert(sizeof(PagemapScan) == 96);
inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScan);
inline constexpr uint64_t kPageIsPresent = 1 << 3;
inline constexpr uint64_t kPageIsSwapped = 1 << 4;

}  // namespace pagewake::abi
