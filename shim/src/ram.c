#include "ram.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "say.h"

#define HUGE_PAGE_BYTES ((size_t)2 << 20)
static const char deleted[] = " (deleted)";

/** Of an open file; a file that has no name any more keeps the one it had. Empty where there is no /proc. */
static void pathOf(int fd, char path[PATH_MAX]) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, path, PATH_MAX - 1);
  size_t length = n < 0 ? 0 : (size_t)n;
  const size_t tail = sizeof deleted - 1;
  if (length > tail && memcmp(path + length - tail, deleted, tail) == 0) length -= tail;
  path[length] = '\0';
}

/** `folder` may be a link, or lie below one. */
static bool isBelow(const char *path, const char *folder) {
  const int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  char real[PATH_MAX];
  pathOf(fd, real);
  close(fd);
  if (path[0] == '\0' || real[0] == '\0')
    refuse("/proc/self/fd cannot be read: without it nothing tells which files lie below %s", folder);
  const size_t length = strlen(real);
  return strncmp(path, real, length) == 0 && path[length] == '/';
}

static bool matches(const char *entry, const struct stat *file, const char *path) {
  struct stat named;
  // The file may have been removed since it was opened.
  if (stat(entry, &named) != 0) return strcmp(entry, path) == 0;
  if (S_ISDIR(named.st_mode)) return isBelow(path, entry);
  return named.st_dev == file->st_dev && named.st_ino == file->st_ino;
}

static size_t pageBytesOf(int fd, const char *name) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) refuse("%s: fstatfs: %s", name, strerror(errno));
  const size_t bytes = fs.f_type == HUGETLBFS_MAGIC ? (size_t)fs.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
  if (bytes != 4096 && bytes != HUGE_PAGE_BYTES)
    refuse("%s has pages of %zu bytes: only 4 KiB and 2 MiB can be served", name, bytes);
  return bytes;
}

bool findRamFile(const struct Settings *settings, int fd, struct RamFile *file) {
  struct stat opened;
  if (fstat(fd, &opened) != 0 || !S_ISREG(opened.st_mode)) return false;
  char path[PATH_MAX];
  pathOf(fd, path);
  for (size_t i = 0; i < settings->entryCount; i++) {
    const char *const entry = settings->entries[i];
    if (!matches(entry, &opened, path)) continue;
    struct stat named;
    const bool folder = stat(entry, &named) == 0 && S_ISDIR(named.st_mode);
    *file = (struct RamFile){.device = opened.st_dev, .inode = opened.st_ino, .entry = i};
    snprintf(file->name, sizeof file->name, "%s", folder ? path : entry);
    file->pageBytes = pageBytesOf(fd, file->name);
    return true;
  }
  return false;
}

struct Region *overlapping(struct Ram *ram, uintptr_t address, size_t bytes) {
  const size_t count = atomic_load_explicit(&ram->count, memory_order_acquire);
  for (size_t i = 0; i < count; i++) {
    struct Region *const region = &ram->regions[i];
    if (address < region->address + region->bytes && region->address < address + bytes) return region;
  }
  return NULL;
}

const struct Region *regionOfFile(const struct Ram *ram, dev_t device, ino_t inode) {
  const size_t count = atomic_load_explicit(&ram->count, memory_order_acquire);
  for (size_t i = 0; i < count; i++) {
    const struct RamFile *const file = &ram->regions[i].file;
    if (file->device == device && file->inode == inode) return &ram->regions[i];
  }
  return NULL;
}

void sortRegions(const struct Ram *ram, const struct Region *order[MAX_RAM]) {
  const size_t count = atomic_load_explicit(&ram->count, memory_order_acquire);
  for (size_t i = 0; i < count; i++) {
    size_t at = i;
    // Stable: files below one folder stay in the order in which QEMU mapped them.
    for (; at > 0 && order[at - 1]->file.entry > ram->regions[i].file.entry; at--) order[at] = order[at - 1];
    order[at] = &ram->regions[i];
  }
}
