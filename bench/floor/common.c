#include "common.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

_Noreturn void fail_because(const char *what, const char *why) {
  fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
  /* Not exit(): other threads may be waiting for pages that nobody will bring any more. */
  _exit(1);
}

_Noreturn void fail(const char *what) { fail_because(what, strerror(errno)); }

int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

unsigned long parse_count(const char *what, const char *text, unsigned long least, unsigned long most) {
  char *end = NULL;
  errno = 0;
  const unsigned long value = text == NULL ? 0 : strtoul(text, &end, 10);
  if (text == NULL || end == text || *end != '\0' || errno != 0 || value < least || value > most) {
    char why[160];
    snprintf(why, sizeof why, "\"%s\" is no whole number from %lu to %lu", text == NULL ? "" : text, least, most);
    fail_because(what, why);
  }
  return value;
}

void end_with_parent(void) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail("PR_SET_PDEATHSIG");
}

int read_exactly(int fd, void *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    const ssize_t n = read(fd, (uint8_t *)bytes + done, length - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("read");
    if (n == 0) {
      if (done == 0) return 0;
      fail_because("read", "the other side closed in the middle");
    }
    done += (size_t)n;
  }
  return 1;
}

void write_exactly(int fd, const void *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    const ssize_t n = write(fd, (const uint8_t *)bytes + done, length - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write");
    done += (size_t)n;
  }
}

/* One step of splitmix64 (public domain, Sebastiano Vigna): neighbouring seeds give unrelated words. */
static uint64_t mix(uint64_t seed) {
  uint64_t z = seed + UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

uint64_t page_word(uint64_t page) { return mix(page) | 1; }

void fill_random(uint8_t *at, uint64_t first_page, uint64_t page_count) {
  for (uint64_t page = first_page; page < first_page + page_count; page++) {
    uint64_t words[PAGE / sizeof(uint64_t)];
    words[0] = page_word(page);
    for (size_t i = 1; i < PAGE / sizeof(uint64_t); i++) words[i] = mix(words[i - 1]);
    memcpy(at + (page - first_page) * PAGE, words, PAGE);
  }
}
