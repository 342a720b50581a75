// What QEMU calls instead of libc: the calls that map guest RAM, and those that would fill it, give it back or drop it behind the agent's back.
// Everything else goes straight to the kernel. The calls are made by number, never looked up by name: that may allocate, and these run early.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "channel.h"
#include "devices.h"
#include "given-back.h"
#include "lookout.h"
#include "ram.h"
#include "say.h"
#include "settings.h"
#include "uffd.h"

#define HOOK __attribute__((visibility("default")))

_Static_assert(sizeof(off_t) == 8 && sizeof(long) == 8, "mmap and mmap64 are one call where a file offset fills a register");

// Newer than some headers.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static struct Settings settings;
/** The environment asks for something. Written before any thread is there. */
static bool enabled;
static struct Ram ram;
static pthread_mutex_t mapping = PTHREAD_MUTEX_INITIALIZER;

#define SMALL_PAGE_BYTES ((uintptr_t)4096)
#define NO_PREALLOC "start the destination with prealloc=off, its memory comes over with the guest"

__attribute__((constructor)) static void load(void) {
  enabled = readSettings(&settings);
  if (enabled) startLookout(&settings, &ram);
}

/** Ending the process would end the guest. */
static bool guestMayRun(void) { return atomic_load(&ram.phase) == PHASE_LIVE; }

static bool isActive(void) { return enabled && atomic_load(&ram.phase) != PHASE_DONE; }

/** Of this process: a child of fork has other things at these addresses. */
static struct Region *ramAt(uintptr_t address, size_t bytes) {
  struct Region *const region = overlapping(&ram, address, bytes);
  return region != NULL && ram.owner == getpid() ? region : NULL;
}

static void *callMmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

/** What a guest could read zeros from, if it were let through. */
static void checkMapping(const struct RamFile *file, int protection, int flags) {
  const int type = flags & MAP_TYPE;
  if (ram.owner != 0 && ram.owner != getpid()) refuse("%s is mapped by a child of the process that has it already", file->name);
  if (type != MAP_SHARED && type != MAP_SHARED_VALIDATE)
    refuse("%s is mapped privately: the pages that an agent brings would not be seen. Give its memory-backend-file share=on", file->name);
  if ((protection & PROT_WRITE) == 0) refuse("%s is mapped read-only: it cannot be a guest's RAM", file->name);
  if ((flags & (MAP_POPULATE | MAP_LOCKED)) != 0) refuse("%s is mapped and filled at once: " NO_PREALLOC, file->name);
  if (regionOfFile(&ram, file->device, file->inode) != NULL)
    refuse("%s is mapped a second time: only one mapping can be watched. Give every memory backend a file of its own", file->name);
  if (atomic_load(&ram.count) == settings.ramCount)
    refuse("%s is one RAM file more than the %zu that were announced: name it in PAGEWAKE_RAM, or raise PAGEWAKE_RAM_COUNT", file->name,
           settings.ramCount);
}

static void watch(const struct RamFile *file, void *address, size_t bytes, int fd, off_t offset) {
  const size_t index = atomic_load(&ram.count);
  if (index == 0) {
    checkDevices();
    ram.owner = getpid();
    ram.uffd = openUffd();
  }
  registerMissing(ram.uffd, (uintptr_t)address, bytes, file->name);
  // A child's mapping is not watched: a page that it touched would become a page of zeros here as well.
  if (syscall(SYS_madvise, address, bytes, MADV_DONTFORK) != 0) refuse("%s: MADV_DONTFORK: %s", file->name, strerror(errno));
  // One that khugepaged makes of some pages and some holes has zeros in the holes (before Linux 6.4). QEMU's own post-copy does the same.
  (void)syscall(SYS_madvise, address, bytes, MADV_NOHUGEPAGE); // fails where the kernel has no huge pages, and then none are made
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) refuse("%s: no descriptor left: %s", file->name, strerror(errno));
  struct Region *const region = &ram.regions[index];
  region->file = *file;
  region->address = (uintptr_t)address;
  region->bytes = bytes;
  region->fileOffset = (uint64_t)offset;
  region->fd = copy;
  atomic_store_explicit(&ram.count, index + 1, memory_order_release);
  if (index == 0) startChannel(&settings, &ram);
}

/** Memory that a guest runs on is not mapped anew: nobody would watch what is there then. */
static bool disturbsGuest(uintptr_t address, size_t bytes, int flags, const struct RamFile *file) {
  const struct Region *region = (flags & MAP_FIXED) != 0 ? ramAt(address, bytes) : NULL;
  if (region == NULL && file != NULL) region = regionOfFile(&ram, file->device, file->inode);
  if (region != NULL) say("%s may not be mapped again before it is whole", region->file.name);
  return region != NULL;
}

HOOK void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  if (!isActive()) return callMmap(address, bytes, protection, flags, fd, offset);
  const int error = errno;
  struct RamFile file;
  // PROT_NONE reserves addresses and reads nothing.
  const bool isRam = (flags & MAP_ANONYMOUS) == 0 && fd >= 0 && protection != PROT_NONE && findRamFile(&settings, fd, &file);
  errno = error;
  if (guestMayRun()) {
    if (disturbsGuest((uintptr_t)address, bytes, flags, isRam ? &file : NULL)) {
      errno = EBUSY;
      return MAP_FAILED;
    }
    // A RAM file that comes only now is memory that was plugged in: it is new to the guest as well, and nobody has anything to bring.
    return callMmap(address, bytes, protection, flags, fd, offset);
  }
  if ((flags & MAP_FIXED) != 0 && ramAt((uintptr_t)address, bytes) != NULL)
    refuse("something else is mapped over guest RAM at %p: what is there would be lost", address);
  if (!isRam) {
    const bool looksLikeRam = (flags & (MAP_ANONYMOUS | MAP_SHARED)) == MAP_SHARED && fd >= 0 && (protection & PROT_WRITE) != 0;
    if (looksLikeRam) noteUnnamed(fd, bytes);
    errno = error;
    return callMmap(address, bytes, protection, flags, fd, offset);
  }
  pthread_mutex_lock(&mapping);
  checkMapping(&file, protection, flags);
  void *const mapped = callMmap(address, bytes, protection, flags, fd, offset);
  if (mapped != MAP_FAILED) {
    // Before anybody has the address: whoever touches it waits, whether an agent is there or not.
    watch(&file, mapped, bytes, fd, offset);
    errno = error;
  }
  pthread_mutex_unlock(&mapping);
  return mapped;
}

HOOK void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));

/** The whole pages of it that lie in the region, as the kernel counts them: of 4 KiB those begun too, of 2 MiB only whole ones. */
static struct Range pagesIn(const struct Region *region, uintptr_t address, size_t bytes) {
  const uintptr_t page = region->file.pageBytes, small = SMALL_PAGE_BYTES - 1;
  uintptr_t start = (address + page - 1) / page * page, end = ((address + bytes + small) & ~small) / page * page;
  if (start < region->address) start = region->address;
  if (end > region->address + region->bytes) end = region->address + region->bytes;
  return (struct Range){start, start < end ? end - start : 0};
}

/** While a guest runs. The call returns once an agent has read of it; the one after may have to be told again. */
static int giveBack(const struct Region *region, uintptr_t address, size_t bytes, int advice) {
  const struct Range range = pagesIn(region, address, bytes);
  // The kernel refuses what does not begin at a page.
  if (range.bytes == 0 || address % SMALL_PAGE_BYTES != 0) return (int)syscall(SYS_madvise, address, bytes, advice);
  const size_t place = beginGivingBack(range);
  const int result = (int)syscall(SYS_madvise, address, bytes, advice);
  endGivingBack(place, result == 0);
  return result;
}

HOOK int madvise(void *address, size_t bytes, int advice) {
  struct Region *const region = isActive() ? ramAt((uintptr_t)address, bytes) : NULL;
  if (region != NULL && advice == MADV_HUGEPAGE) {
    atomic_store(&region->wantsHugePages, true); // once it is whole
    return 0;
  }
  if (region != NULL && !guestMayRun()) {
    if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE)
      refuse("QEMU fills %s before the migration (MADV_POPULATE): " NO_PREALLOC, region->file.name);
    // Nothing is there yet, so nothing has to go. The kernel would keep QEMU waiting for an agent that hears of it.
    if (advice == MADV_DONTNEED || advice == MADV_REMOVE || advice == MADV_FREE) return 0;
  }
  if (region != NULL && (advice == MADV_DONTNEED || advice == MADV_REMOVE))
    return giveBack(region, (uintptr_t)address, bytes, advice);
  return (int)syscall(SYS_madvise, address, bytes, advice);
}

HOOK int munmap(void *address, size_t bytes) {
  const struct Region *const region = isActive() ? ramAt((uintptr_t)address, bytes) : NULL;
  if (region == NULL) return (int)syscall(SYS_munmap, address, bytes);
  // The agent has its addresses, and nothing would tell it that something else is there.
  say("QEMU gives up %s before it is whole: it stays mapped", region->file.name);
  errno = EBUSY;
  return -1;
}

/** A hole in a file sends no event: as MADV_REMOVE the agent hears of it first, and brings nothing back that the guest has given away. */
static bool removeRange(int fd, off_t offset, off_t bytes) {
  struct stat file;
  if (offset < 0 || bytes <= 0 || fstat(fd, &file) != 0) return false;
  const struct Region *const region = regionOfFile(&ram, file.st_dev, file.st_ino);
  if (region == NULL || ram.owner != getpid()) return false;
  if ((uint64_t)offset < region->fileOffset || (uint64_t)(offset + bytes) > region->fileOffset + region->bytes) return false;
  const uintptr_t address = region->address + ((uint64_t)offset - region->fileOffset);
  return giveBack(region, address, (size_t)bytes, MADV_REMOVE) == 0;
}

HOOK int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  if ((mode & FALLOC_FL_PUNCH_HOLE) != 0 && guestMayRun()) {
    const int error = errno;
    const bool removed = removeRange(fd, offset, bytes);
    errno = error;
    if (removed) return 0;
  }
  return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

HOOK int fallocate64(int fd, int mode, off_t offset, off_t bytes) __attribute__((alias("fallocate")));

HOOK int mlockall(int flags) {
  if (isActive() && !guestMayRun() && (flags & MCL_ONFAULT) == 0)
    refuse("QEMU locks all of its memory, which fills the guest's RAM before the migration: start the destination without "
           "-overcommit mem-lock=on (mem-lock=on-fault works)");
  return (int)syscall(SYS_mlockall, flags);
}
