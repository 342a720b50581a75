#include "lookout.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "devices.h"
#include "say.h"

/** QEMU maps its RAM within some ms of its start. */
#define PATIENCE_MS 5000
#define POLL_MS 100
/** Guest RAM is not smaller; what libraries map is. */
#define LEAST_BYTES ((size_t)1 << 20)

static struct {
  const struct Settings *settings;
  const struct Ram *ram;
} lookout;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/** The first of them; empty: none. */
static char unnamed[PATH_MAX];

/** A program of another name may start QEMU, with the same arguments and the same environment. */
static bool isQemu(void) {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n <= 0) return false;
  path[n] = '\0';
  const char *const slash = strrchr(path, '/');
  return strncmp(slash == NULL ? path : slash + 1, "qemu", 4) == 0;
}

static void complain(void) {
  char names[2048] = "";
  size_t length = 0;
  for (size_t i = 0; i < lookout.settings->entryCount && length < sizeof names; i++)
    length += (size_t)snprintf(names + length, sizeof names - length, "%s%s", i == 0 ? "" : ", ", lookout.settings->entries[i]);
  pthread_mutex_lock(&lock);
  if (unnamed[0] != '\0')
    say("QEMU has mapped nothing that PAGEWAKE_RAM names (%s), so no agent brings its memory; what it has mapped is %s: name that", names,
        unnamed);
  else
    say("QEMU has mapped nothing that PAGEWAKE_RAM names (%s), so no agent brings its memory; its RAM has to be a "
        "memory-backend-file with share=on and one of these as its mem-path",
        names);
  pthread_mutex_unlock(&lock);
}

static void *look(void *unused) {
  (void)unused;
  pthread_setname_np(pthread_self(), "pagewake-look");
  for (unsigned waitedMs = 0; atomic_load_explicit(&lookout.ram->count, memory_order_acquire) == 0; waitedMs += POLL_MS) {
    if (waitedMs >= PATIENCE_MS) {
      complain();
      break;
    }
    struct timespec left = {0, POLL_MS * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
  }
  return NULL;
}

void startLookout(const struct Settings *settings, const struct Ram *ram) {
  // With -daemonize the process that is started is not the one that maps: it would complain of itself.
  if (!isQemu() || !hasOption("incoming") || hasOption("daemonize")) return;
  lookout.settings = settings;
  lookout.ram = ram;
  // QEMU's signals are for QEMU's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  // Without it only a line is missing.
  if (pthread_create(&thread, NULL, look, NULL) == 0) pthread_detach(thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void noteUnnamed(int fd, size_t bytes) {
  if (bytes < LEAST_BYTES || lookout.ram == NULL) return;
  pthread_mutex_lock(&lock);
  if (unnamed[0] == '\0') {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, unnamed, sizeof unnamed - 1);
    unnamed[n > 0 ? n : 0] = '\0';
  }
  pthread_mutex_unlock(&lock);
}
