#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "say.h"

/** Null: not set, or set to nothing, as a shell script does that has no value. */
static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value != NULL && *value != '\0' ? value : NULL;
}

static void readEntries(struct Settings *settings, const char *list) {
  // Kept for the life of the process.
  char *rest = strdup(list);
  if (rest == NULL) refuse("PAGEWAKE_RAM: %s", strerror(errno));
  for (char *entry; (entry = strsep(&rest, ":")) != NULL;) {
    if (entry[0] != '/') refuse("PAGEWAKE_RAM: \"%s\" is not an absolute path (paths are separated by colons)", entry);
    for (size_t i = 0; i < settings->entryCount; i++)
      if (strcmp(settings->entries[i], entry) == 0) refuse("PAGEWAKE_RAM names %s twice", entry);
    if (settings->entryCount == MAX_RAM) refuse("PAGEWAKE_RAM names more than %d files", MAX_RAM);
    settings->entries[settings->entryCount++] = entry;
  }
}

static size_t readCount(const char *text) {
  char *end;
  errno = 0;
  const unsigned long count = strtoul(text, &end, 10);
  if (errno != 0 || *end != '\0' || text[0] < '0' || text[0] > '9' || count < 1 || count > MAX_RAM)
    refuse("PAGEWAKE_RAM_COUNT: \"%s\" is not a number from 1 to %d", text, MAX_RAM);
  return count;
}

bool readSettings(struct Settings *settings) {
  const char *path = variable("PAGEWAKE_SOCKET");
  const char *ram = variable("PAGEWAKE_RAM");
  const char *count = variable("PAGEWAKE_RAM_COUNT");
  if (path == NULL) {
    if (ram != NULL || count != NULL)
      refuse("PAGEWAKE_RAM is set, PAGEWAKE_SOCKET is not: set both (the agent's socket for this VM), or neither");
    return false;
  }
  if (ram == NULL) refuse("PAGEWAKE_SOCKET is set, PAGEWAKE_RAM is not: set both (the guest's RAM files), or neither");
  if (path[0] != '/') refuse("PAGEWAKE_SOCKET: \"%s\" is not an absolute path", path);
  if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
    refuse("PAGEWAKE_SOCKET: %s is longer than a socket's path can be (%zu bytes)", path,
           sizeof((struct sockaddr_un *)0)->sun_path - 1);
  *settings = (struct Settings){.socketPath = path, .vm = variable("PAGEWAKE_VM")};
  readEntries(settings, ram);
  settings->ramCount = count != NULL ? readCount(count) : settings->entryCount;
  return true;
}
