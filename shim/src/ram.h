// The guest's RAM: which files it is in, and where they are mapped.
#pragma once

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "settings.h"

struct RamFile {
  dev_t device;
  ino_t inode;
  /** Which entry of PAGEWAKE_RAM it is, or is below. */
  size_t entry;
  size_t pageBytes;
  /** The entry, or where that is a folder the file's own path. */
  char name[PATH_MAX];
};

struct Region {
  struct RamFile file;
  uintptr_t address;
  size_t bytes;
  uint64_t fileOffset;
  /** A copy of ours: QEMU's own may be closed. */
  int fd;
  /** QEMU has asked for huge pages here. */
  atomic_bool wantsHugePages;
};

enum Phase {
  /** No guest has run on it: whatever the files hold is of no value. */
  PHASE_FRESH,
  /** An agent has said `ready`: a guest may run on it. Also where it then failed. */
  PHASE_LIVE,
  /** Whole: no agent is needed any more. */
  PHASE_DONE,
};

struct Ram {
  int uffd;
  /** Who mapped it. A child of fork has nothing of it. */
  pid_t owner;
  /** Regions below this one do not change until `done`. */
  atomic_size_t count;
  struct Region regions[MAX_RAM];
  _Atomic enum Phase phase;
};

/** Whether `fd` is a RAM file. Ends the process where it is one and cannot be served. */
bool findRamFile(const struct Settings *settings, int fd, struct RamFile *file);

/** The region that shares a byte with the range; null where there is none. */
struct Region *overlapping(struct Ram *ram, uintptr_t address, size_t bytes);
const struct Region *regionOfFile(const struct Ram *ram, dev_t device, ino_t inode);

/** Fills `order` with the regions in the order of PAGEWAKE_RAM: the order of the guest's memory image. */
void sortRegions(const struct Ram *ram, const struct Region *order[MAX_RAM]);
