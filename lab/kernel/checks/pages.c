// What a page holds, and who fills it: a thread that reads the userfaultfd, and whoever runs the vCPU.
#include "checks.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/syscall.h>

struct counts counts;
int wrong_touches;
bool jitter;
pthread_mutex_t fill_lock = PTHREAD_MUTEX_INITIALIZER;

u64 word_of(u64 page, u64 word) { return (page * PAGE_WORDS + word + 1) * 0x9e3779b97f4a7c15ull; }

void pattern(u64 page, void *to) {
  for (u64 word = 0; word < PAGE_WORDS; word++) ((u64 *)to)[word] = word_of(page, word);
}

void clear_bit(u64 page) { __atomic_fetch_and(&bitmap[page / 8], (uint8_t)~(1u << page % 8), __ATOMIC_RELEASE); }
void set_bit(u64 page) { __atomic_fetch_or(&bitmap[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_RELEASE); }

void punch(u64 page) {
  const int mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
  if (fallocate(gmem, mode, (off_t)(page * PAGE_BYTES), PAGE_BYTES) < 0) die("punch");
}

void touch(u64 page) {
  const u64 found = *(volatile u64 *)(ram + page * PAGE_BYTES);
  if (found != (is_zeros(page) ? 0 : word_of(page, 0))) wrong_touches++;
}

/** The calls wake before the counters count. */
void settle(void) {
  pthread_mutex_lock(&fill_lock);
  pthread_mutex_unlock(&fill_lock);
}

void dawdle(unsigned seed) {
  if (!jitter) return;
  const double until = now_s() + (double)(seed * 2654435761u >> 24) * 2e-6;
  while (now_s() < until) continue;
}

int new_uffd(u64 features) {
  const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0) die("userfaultfd");
  return fd;
}

int register_range(int fd, void *at, u64 bytes, u64 mode) {
  struct uffdio_register request = {.range = {(u64)at, bytes}, .mode = mode};
  return ioctl(fd, UFFDIO_REGISTER, &request);
}

static void wake(struct uffdio_range range) {
  if (ioctl(uffd, UFFDIO_WAKE, &range) < 0) die("UFFDIO_WAKE");
}

static void resolve_minor(u64 page, struct uffdio_range range) {
  struct uffdio_continue request = {.range = range};
  if (ioctl(uffd, UFFDIO_CONTINUE, &request) == 0) {
    counts.continued++;
  } else if (errno == EEXIST) {
    counts.continue_eexist++;
    wake(range);
  } else if (errno == EFAULT) {
    // Punched meanwhile: whoever waits faults anew. The bit stays as it is, for the page is not there.
    counts.continue_gone++;
    wake(range);
    return;
  } else {
    die("UFFDIO_CONTINUE");
  }
  clear_bit(page);
}

static void resolve_by_zeros(u64 page, struct uffdio_range range) {
  struct uffdio_zeropage request = {.range = range};
  if (ioctl(uffd, UFFDIO_ZEROPAGE, &request) < 0) die("UFFDIO_ZEROPAGE");
  counts.zeroed++;
  clear_bit(page);
}

static void resolve_by_copy(u64 page, struct uffdio_range range) {
  static char content[PAGE_BYTES];
  pattern(page, content);
  struct uffdio_copy request = {.dst = range.start, .src = (u64)content, .len = PAGE_BYTES};
  if (ioctl(uffd, UFFDIO_COPY, &request) == 0) {
    counts.copied++;
  } else if (errno == EEXIST) {
    counts.copy_eexist++;
    wake(range);
  } else {
    die("UFFDIO_COPY");
  }
  clear_bit(page);
}

/** Comes back as a minor fault, which clears the bit. */
static void resolve_by_write(u64 page, struct uffdio_range range) {
  static char content[PAGE_BYTES];
  pattern(page, content);
  if (pwrite(gmem, content, PAGE_BYTES, (off_t)(page * PAGE_BYTES)) != PAGE_BYTES) die("pwrite for a missing fault");
  counts.written_and_woken++;
  wake(range);
}

static void resolve(const struct uffd_msg *message) {
  const u64 address = message->arg.pagefault.address & ~(u64)(PAGE_BYTES - 1);
  const u64 page = (address - (u64)ram) / PAGE_BYTES;
  const struct uffdio_range range = {address, PAGE_BYTES};
  dawdle((unsigned)(counts.missing + counts.minor));
  pthread_mutex_lock(&fill_lock);
  if ((pid_t)message->arg.pagefault.feat.ptid == vcpu_thread) counts.by_vcpu++;
  if (message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR) {
    counts.minor++;
    resolve_minor(page, range);
  } else {
    counts.missing++;
    // As classes.c says.
    if (page < CLASS_PAGES && page % 8 == 4) resolve_by_zeros(page, range);
    else if (page < CLASS_PAGES && page % 8 == 5) resolve_by_write(page, range);
    else resolve_by_copy(page, range);
  }
  pthread_mutex_unlock(&fill_lock);
}

static void *uffd_loop(void *unused) {
  struct pollfd waiting = {.fd = uffd, .events = POLLIN};
  for (;;) {
    struct uffd_msg message;
    if (poll(&waiting, 1, -1) <= 0 || read(uffd, &message, sizeof message) != sizeof message) continue;
    if (message.event != UFFD_EVENT_PAGEFAULT) die("an event that nobody asked for");
    resolve(&message);
  }
  return unused;
}

void start_uffd_thread(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, uffd_loop, NULL) != 0) die("pthread_create");
}

void fill_gmem(u64 gpa) {
  static char content[PAGE_BYTES];
  const u64 page = (gpa - RAM_GPA) / PAGE_BYTES;
  counts.exits++;
  pattern(page, content);
  dawdle((unsigned)(counts.exits * 7 + 1));
  pthread_mutex_lock(&fill_lock);
  if (pwrite(gmem, content, PAGE_BYTES, (off_t)(page * PAGE_BYTES)) == PAGE_BYTES) counts.written++;
  else if (errno == EEXIST) counts.write_eexist++;
  else die("pwrite for an exit");
  clear_bit(page);
  pthread_mutex_unlock(&fill_lock);
}

bool guest_read_right(const u64 *addresses, int count) {
  for (int n = 0; n < count; n++) {
    const u64 page = (addresses[n] - RAM_GPA) / PAGE_BYTES;
    if (guest_read(n) != (is_zeros(page) ? 0 : word_of(page, 0))) return false;
  }
  return true;
}
