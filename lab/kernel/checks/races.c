// The same page wanted by two at once; pages taken away while they are used.
#include "checks.h"
#include <sched.h>

void check_rearming(void) {
  enum { PAGES = 64, STRIDE = 8 }; // of the class that exits
  u64 addresses[PAGES];
  section("rearming");
  for (u64 n = 0; n < PAGES; n++) addresses[n] = RAM_GPA + n * STRIDE * PAGE_BYTES;
  const int before = guest_touches(addresses, PAGES, fill_gmem);
  for (u64 n = 0; n < PAGES; n++) {
    set_bit(n * STRIDE);
    punch(n * STRIDE);
  }
  const int after = guest_touches(addresses, PAGES, fill_gmem);
  const bool right = guest_read_right(addresses, PAGES);
  for (u64 n = 0; n < PAGES; n++) touch(n * STRIDE);
  settle();
  check(before == 0 && after == PAGES, "set bit and punched hole: each page exits once more");
  check(right && wrong_touches == 0, "it is filled once more");
  check(counts.minor == PAGES && counts.missing == 0, "then it is minor for user space");

  const u64 absent = RAM_GPA + (u64)ABSENT_PAGE * PAGE_BYTES;
  clear_bit(ABSENT_PAGE);
  const int exits = guest_touches(&absent, 1, fill_gmem);
  check(exits == 1 && guest_read_right(&absent, 1), "an absent page exits though its bit is clear");
}

static volatile int at_user, at_guest;

static void fill_raced(u64 gpa) {
  at_guest = (int)((gpa - RAM_GPA) / PAGE_BYTES) - RACE_PAGE;
  while (at_user < at_guest) sched_yield();
  fill_gmem(gpa);
}

static void *touch_raced(void *unused) {
  for (int n = 0; n < RACE_PAGES; n++) {
    at_user = n;
    while (at_guest < n) sched_yield();
    dawdle((unsigned)(n * 5 + 3));
    touch(RACE_PAGE + (u64)n);
  }
  at_user = RACE_PAGES;
  return unused;
}

void check_race(void) {
  static u64 addresses[RACE_PAGES];
  pthread_t thread;
  section("one page, wanted by guest and user space at once");
  for (u64 n = 0; n < RACE_PAGES; n++) addresses[n] = RAM_GPA + (RACE_PAGE + n) * PAGE_BYTES;
  at_user = at_guest = -1;
  jitter = true;
  pthread_create(&thread, NULL, touch_raced, NULL);
  const int exits = guest_touches(addresses, RACE_PAGES, fill_raced);
  pthread_join(thread, NULL);
  settle();
  jitter = false;
  printf("  exits %d: written %d, EEXIST %d; missing %d: copied %d, EEXIST %d; minor %d: continued %d, EEXIST %d\n", exits,
         counts.written, counts.write_eexist, counts.missing, counts.copied, counts.copy_eexist, counts.minor,
         counts.continued, counts.continue_eexist);
  int wrong = 0;
  for (u64 page = RACE_PAGE; page < RACE_PAGE + RACE_PAGES; page++)
    for (u64 word = 2; word < PAGE_WORDS; word++) wrong += ((u64 *)(ram + page * PAGE_BYTES))[word] != word_of(page, word);
  check(guest_read_right(addresses, RACE_PAGES) && wrong_touches == 0 && wrong == 0, "nobody saw a wrong word");
  check(counts.written + counts.copied == RACE_PAGES, "each page was filled once, by either");
}

static volatile bool stop;
static long punches, touches;

static void *punch_at_random(void *unused) {
  for (unsigned random = 1; !stop; random = random * 1103515245 + 12345) {
    const u64 page = STRESS_PAGE + (random >> 16) % STRESS_PAGES;
    pthread_mutex_lock(&fill_lock);
    set_bit(page);
    punch(page);
    pthread_mutex_unlock(&fill_lock);
    punches++;
    if (random >> 20 & 1) usleep(random >> 26);
  }
  return unused;
}

static void *touch_at_random(void *unused) {
  for (unsigned random = 7; !stop; random = random * 1103515245 + 12345) {
    touch(STRESS_PAGE + (random >> 16) % STRESS_PAGES);
    if (touches++ % 16 == 0) sched_yield();
  }
  return unused;
}

void check_stress(double seconds) {
  enum { TOUCHES = 128 };
  static u64 addresses[TOUCHES];
  pthread_t puncher, toucher;
  int rounds = 0, wrong = 0;
  section("guest, user space and punched holes, at random");
  for (u64 n = 0; n < TOUCHES; n++) addresses[n] = RAM_GPA + (STRESS_PAGE + n * 7 % STRESS_PAGES) * PAGE_BYTES;
  pthread_create(&puncher, NULL, punch_at_random, NULL);
  pthread_create(&toucher, NULL, touch_at_random, NULL);
  for (const double until = now_s() + seconds; now_s() < until; rounds++) {
    guest_touches(addresses, TOUCHES, fill_gmem);
    wrong += !guest_read_right(addresses, TOUCHES);
  }
  stop = true;
  pthread_join(puncher, NULL);
  pthread_join(toucher, NULL);
  settle();
  printf("  %.0f s: %ld punched, %ld touched, %d by the guest; exits %d: written %d, EEXIST %d; missing %d: copied %d, EEXIST %d; "
         "minor %d: continued %d, EEXIST %d, gone %d\n",
         seconds, punches, touches, rounds * TOUCHES, counts.exits, counts.written, counts.write_eexist, counts.missing,
         counts.copied, counts.copy_eexist, counts.minor, counts.continued, counts.continue_eexist, counts.continue_gone);
  check(wrong == 0 && wrong_touches == 0, "nobody saw a zero page or a stale one");
  check(punches > 0 && counts.exits > 0 && counts.missing + counts.minor > 0, "all of them were at it");
}
