#include "guest.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

static const uint64_t MAX_WRONG_LINES = 20;

void say(const char *format, ...) {
  char line[512];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(line, sizeof line - 1, format, args);
  va_end(args);
  if (length > (int)sizeof line - 2) length = (int)sizeof line - 2;
  line[length++] = '\n';
  if (write(STDOUT_FILENO, line, (size_t)length) < 0) return; // nobody to tell
}

void die(const char *what) {
  say("{\"event\":\"died\",\"what\":\"%s\",\"error\":\"%s\"}", what, strerror(errno));
  reboot(RB_AUTOBOOT); // QEMU runs with -no-reboot: it ends
  for (;;) pause();
}

void say_wrong(const char *where, uint64_t number, uint64_t word, uint64_t expected, uint64_t found) {
  if (atomic_fetch_add(&shared->wrong, 1) >= MAX_WRONG_LINES) return;
  say("{\"event\":\"wrong\",\"where\":\"%s\",\"number\":%llu,\"word\":%llu,\"expected\":\"%016llx\",\"found\":\"%016llx\"}",
      where, (unsigned long long)number, (unsigned long long)word, (unsigned long long)expected,
      (unsigned long long)found);
}

uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void pace(uint64_t per_s, uint64_t started_ms, uint64_t done) {
  if (per_s == 0) return;
  const uint64_t due_ms = started_ms + done * 1000 / per_s, now = now_ms();
  if (due_ms > now) usleep((useconds_t)(due_ms - now) * 1000);
}

static uint64_t verified(void) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < options.workers; i++) sum += atomic_load(&shared->workers[i].verified);
  return sum;
}

static void say_state(const char *name, uint64_t number) {
  say("{\"%s\":%llu,\"ms\":%llu,\"work\":%llu,\"wrong\":%llu,\"disk\":%llu,\"echoed\":%llu}", name,
      (unsigned long long)number, (unsigned long long)now_ms(), (unsigned long long)verified(),
      (unsigned long long)atomic_load(&shared->wrong), (unsigned long long)atomic_load(&shared->disk_blocks),
      (unsigned long long)atomic_load(&shared->echoed_bytes));
}

void heartbeats(void) {
  // Nothing of it can be dropped and read again. What it touches may still be on the other host, as with any program.
  mlockall(MCL_CURRENT | MCL_FUTURE);
  for (uint64_t number = 0;; number++) {
    say_state("hb", number);
    usleep(HEARTBEAT_MS * 1000);
  }
}

static void verify(void) {
  atomic_store(&shared->round_pages, 0);
  atomic_store(&shared->round_wrong, 0);
  const uint64_t round = atomic_fetch_add(&shared->round, 1) + 1;
  for (uint64_t i = 0; i < options.workers; i++)
    while (atomic_load(&shared->workers[i].round) < round) usleep(10000);
  say("{\"event\":\"verified\",\"pages\":%llu,\"wrong\":%llu,\"wrongEver\":%llu,\"disk\":%llu}",
      (unsigned long long)atomic_load(&shared->round_pages), (unsigned long long)atomic_load(&shared->round_wrong),
      (unsigned long long)atomic_load(&shared->wrong), (unsigned long long)atomic_load(&shared->disk_blocks));
}

void commands(void) {
  char line[128];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\r\n")] = 0;
    if (strcmp(line, "verify") == 0) verify();
    else if (strcmp(line, "stats") == 0) say_state("stats", 0);
    else if (line[0] != 0) say("{\"event\":\"unknown\",\"command\":\"%.60s\"}", line);
  }
  for (;;) pause();
}
