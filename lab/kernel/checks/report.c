#include "checks.h"
#include <signal.h>
#include <time.h>

static const char *current = "start";
static int passed, failed;

double now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void section(const char *name) {
  current = name;
  memset(&counts, 0, sizeof counts);
  wrong_touches = 0;
  printf("%s:\n", name);
}

void check(bool holds, const char *name) {
  if (holds) passed++;
  else failed++;
  printf("  %s %s\n", holds ? "ok" : "FAIL", name);
}

void expect(long result, long wanted, int error, const char *name) {
  const int got = result < 0 ? errno : 0;
  const bool holds = error != 0 ? got == error : result == wanted;
  check(holds, name);
  if (!holds) printf("       %ld %s, not %s\n", result, got ? strerror(got) : "", error ? strerror(error) : "that");
}

void die(const char *what) {
  printf("%s: %s: %s\n", current, what, strerror(errno));
  fflush(stdout);
  _exit(2);
}

static void late(int signal) {
  (void)signal;
  // A handler, but nobody comes back from it.
  printf("%s: hangs: exits %d, missing %d, minor %d, copied %d, continued %d\n", current, counts.exits, counts.missing,
         counts.minor, counts.copied, counts.continued);
  fflush(stdout);
  // The signal may have come to the thread that is in KVM_RUN, whose state can be had only from there.
  if (gettid() == vcpu_thread) print_vcpu();
  fflush(stdout);
  _exit(2);
}

void start_deadline(unsigned seconds) {
  signal(SIGALRM, late);
  alarm(seconds);
}

int report(void) {
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
