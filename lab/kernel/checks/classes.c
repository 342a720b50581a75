// Every way to fill a page, guest and user space at once, then each after the other.
#include "checks.h"
#include <fcntl.h>

/** Of a page, by its number modulo eight. pages.c fills BY_ZEROPAGE and BY_WRITE as they are called. */
enum { BY_EXIT, BY_COPY, WRITTEN, BY_EITHER, BY_ZEROPAGE, BY_WRITE, ALLOCATED, ALLOCATED_BY_EXIT, CLASSES };
static const char *const NAMES[CLASSES] = {
    "the guest's exit, write()",
    "user space's missing fault, UFFDIO_COPY",
    "written before, user space's minor fault, UFFDIO_CONTINUE",
    "guest and user space at once",
    "user space's missing fault, UFFDIO_ZEROPAGE",
    "user space's missing fault, write() and UFFDIO_WAKE, then a minor fault",
    "allocated before by fallocate(), user space's minor fault, UFFDIO_CONTINUE",
    "allocated before by fallocate(), the guest's exit, write()",
};
#define SET(class) (1u << (class))

bool is_zeros(u64 page) { return page < CLASS_PAGES && (page % 8 == BY_ZEROPAGE || page % 8 == ALLOCATED); }

static void *touch_classes(void *set) {
  for (u64 page = CLASS_PAGES; page--;)
    if ((u64)set >> page % 8 & 1) touch(page);
  return NULL;
}

/** The guest touches the pages of one set, a thread those of another. @returns how many exits */
static int touch_both(unsigned guest, unsigned user, int *count, bool *right) {
  static u64 addresses[CLASS_PAGES];
  pthread_t thread;
  *count = 0;
  for (u64 page = 0; page < CLASS_PAGES; page++)
    if (guest >> page % 8 & 1) addresses[(*count)++] = RAM_GPA + page * PAGE_BYTES;
  pthread_create(&thread, NULL, touch_classes, (void *)(u64)user);
  const int exits = guest_touches(addresses, *count, fill_gmem);
  *right = guest_read_right(addresses, *count);
  pthread_join(thread, NULL);
  settle();
  return exits;
}

static void prepare(void) {
  static char content[PAGE_BYTES];
  for (u64 page = 0; page < CLASS_PAGES; page++) {
    const off_t at = (off_t)(page * PAGE_BYTES);
    pattern(page, content);
    if (page % 8 == WRITTEN && pwrite(gmem, content, PAGE_BYTES, at) != PAGE_BYTES) die("pwrite ahead");
    const bool allocated = page % 8 == ALLOCATED || page % 8 == ALLOCATED_BY_EXIT;
    if (allocated && fallocate(gmem, FALLOC_FL_KEEP_SIZE, at, PAGE_BYTES) < 0) die("fallocate");
  }
}

static void check_contents(void) {
  int wrong[CLASSES] = {0}, bits = 0;
  for (u64 page = 0; page < CLASS_PAGES; page++) {
    const u64 *words = (const u64 *)(ram + page * PAGE_BYTES);
    const u64 first = is_zeros(page) ? 0 : word_of(page, 0);
    for (u64 word = 0; word < PAGE_WORDS; word++) {
      // The guest wrote word 1.
      const u64 due = word == 1 ? ~first : is_zeros(page) ? 0 : word_of(page, word);
      if (words[word] != due) {
        wrong[page % 8]++;
        break;
      }
    }
    bits += bitmap[page / 8] >> page % 8 & 1;
  }
  for (int class = 0; class < CLASSES; class++) check(wrong[class] == 0, NAMES[class]);
  check(bits == 0, "every bit is clear");
}

void check_classes(void) {
  const unsigned missing = SET(BY_COPY) | SET(BY_ZEROPAGE) | SET(BY_WRITE), minor = SET(WRITTEN) | SET(ALLOCATED);
  const unsigned by_exit = SET(BY_EXIT) | SET(ALLOCATED_BY_EXIT);
  int count;
  bool right;
  section("guest and user space at once");
  prepare();
  int exits = touch_both(by_exit | SET(BY_EITHER), missing | minor | SET(BY_EITHER), &count, &right);
  printf("  exits %d: written %d, EEXIST %d; missing %d: copied %d, EEXIST %d, zeroed %d, written %d; minor %d: continued %d, EEXIST %d\n",
         exits, counts.written, counts.write_eexist, counts.missing, counts.copied, counts.copy_eexist, counts.zeroed,
         counts.written_and_woken, counts.minor, counts.continued, counts.continue_eexist);
  check(right, "the guest read the right words");
  check(wrong_touches == 0, "user space read the right words");
  check(counts.written + counts.write_eexist == exits && exits >= count * 2 / 3, "the guest's faults were exits");
  check(counts.zeroed == CLASS_PAGES / 8 && counts.written_and_woken == CLASS_PAGES / 8, "user space's faults were events");
  check(counts.by_vcpu == 0, "none of the guest's faults was an event");

  section("the other way round");
  exits = touch_both(missing | minor, by_exit, &count, &right);
  check(right && wrong_touches == 0, "both read the right words");
  check(exits == 0 && counts.missing == 0, "what is there is neither an exit nor a missing fault");
  check(counts.minor == CLASS_PAGES / 4 && counts.continued == CLASS_PAGES / 4, "what the guest had is one minor fault a page");

  section("contents, by how a page was filled");
  check_contents();
}
