#include "devices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "say.h"

/** A long command line of libvirt's is a tenth of it. */
#define COMMAND_LINE_BYTES (256 * 1024)

static const struct {
  const char *name;
  const char *why;
} unserved[] = {
    {"vhost-user", "another process would read guest RAM through a mapping of its own, which nobody watches: it would find zeros"},
    {"vfio-pci", "it pins all of the guest's RAM, and would wait for every page before the migration begins"},
    {"vhost-vdpa", "it pins all of the guest's RAM, and would wait for every page before the migration begins"},
};

/** As a value of its own, or with a suffix (vhost-user-fs-pci); in QEMU's own form (driver=x,…) or in JSON. Part of a path does not count. */
static bool mentions(const char *argument, const char *name) {
  for (const char *at = argument; (at = strstr(at, name)) != NULL; at++) {
    const char after = at[strlen(name)];
    const bool starts = at == argument || at[-1] == '=' || at[-1] == '"';
    if (starts && (after == '\0' || after == ',' || after == '"' || after == '-')) return true;
  }
  return false;
}

static bool isOption(const char *argument, const char *name) {
  const char *word = argument;
  while (*word == '-') word++;
  return word != argument && strcmp(word, name) == 0;
}

static void checkArgument(const char *argument) {
  for (size_t i = 0; i < sizeof unserved / sizeof *unserved; i++)
    if (mentions(argument, unserved[i].name))
      refuse("%s cannot be used by a guest that comes by post-copy (%s)", unserved[i].name, unserved[i].why);
}

static char text[COMMAND_LINE_BYTES + 1]; // ends with a zero that is never written

/** @returns how much of `text` it is; one caller at a time */
static size_t readCommandLine(void) {
  const int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (fd < 0) refuse("/proc/self/cmdline: %s", strerror(errno));
  size_t length = 0;
  for (ssize_t n; (n = read(fd, text + length, COMMAND_LINE_BYTES - length)) > 0;) length += (size_t)n;
  close(fd);
  return length;
}

void checkDevices(void) {
  const size_t length = readCommandLine();
  bool isDevice = false;
  for (size_t at = 0; at < length; at += strlen(text + at) + 1) {
    if (isDevice) checkArgument(text + at);
    isDevice = isOption(text + at, "device") || isOption(text + at, "netdev");
  }
}

bool hasOption(const char *name) {
  const size_t length = readCommandLine();
  for (size_t at = 0; at < length; at += strlen(text + at) + 1)
    if (isOption(text + at, name)) return true;
  return false;
}
