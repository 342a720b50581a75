#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "filler.h"

enum { BATCH = 64 };

static int connect_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int on = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect to the page server");
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) fail("TCP_NODELAY");
  return fd;
}

struct resolver {
  const struct memory *memory;
  int socket;
  /* Pages that were asked for, oldest first: the server answers in order. A ring: never more than the threads that wait. */
  uint32_t asked[1024];
  unsigned oldest, newest;
  uint8_t bytes[BATCH * PAGE];
  size_t have;
};

static void ask(struct resolver *r) {
  struct uffd_msg events[BATCH];
  const ssize_t n = read(r->memory->uffd, events, sizeof events);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) fail("read of the userfaultfd");
  struct request requests[BATCH];
  size_t count = 0;
  for (size_t i = 0; i < (size_t)n / sizeof *events; i++) {
    if (events[i].event != UFFD_EVENT_PAGEFAULT) continue;
    const uint64_t page = (events[i].arg.pagefault.address - (uintptr_t)r->memory->at) / PAGE;
    requests[count++] = (struct request){.first_page = (uint32_t)page, .page_count = 1};
    r->asked[r->newest++ % 1024] = (uint32_t)page;
  }
  write_exactly(r->socket, requests, count * sizeof *requests);
}

static void install(struct resolver *r) {
  const ssize_t n = recv(r->socket, r->bytes + r->have, sizeof r->bytes - r->have, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) fail("recv from the page server");
  if (n == 0) fail_because("recv", "the page server is gone");
  r->have += (size_t)n;
  size_t used = 0;
  for (; r->have - used >= PAGE; used += PAGE) memory_copy(r->memory, r->asked[r->oldest++ % 1024], r->bytes + used, 1);
  /* The beginning of a page of which the rest has not come. */
  for (size_t i = 0; used > 0 && i < r->have - used; i++) r->bytes[i] = r->bytes[used + i];
  r->have -= used;
}

/* One thread for both ends: a second one would add a wake-up to every fault and save nothing on the way of one page. */
static void *resolve(void *argument) {
  struct resolver *r = argument;
  struct pollfd fds[2] = {{.fd = r->memory->uffd, .events = POLLIN}, {.fd = r->socket, .events = POLLIN}};
  for (;;) {
    if (poll(fds, 2, -1) < 0 && errno != EINTR) fail("poll");
    if (fds[0].revents != 0) ask(r);
    if (fds[1].revents != 0) install(r);
  }
  return NULL;
}

/* One of each a program. */
static pthread_t resolver_thread, bulk_thread;

/* For ever: they end with the program. */
static void start_thread(pthread_t *thread, void *(*run)(void *), void *argument) {
  errno = pthread_create(thread, NULL, run, argument);
  if (errno != 0) fail("pthread_create");
}

static int64_t thread_cpu_ns(pthread_t thread) {
  clockid_t clock;
  struct timespec spent;
  errno = pthread_getcpuclockid(thread, &clock);
  if (errno != 0 || clock_gettime(clock, &spent) != 0) fail("CPU clock of a thread");
  return spent.tv_sec * INT64_C(1000000000) + spent.tv_nsec;
}

void floor_serve(const struct memory *memory, int port) {
  struct resolver *r = calloc(1, sizeof *r);
  if (r == NULL) fail("calloc");
  r->memory = memory;
  r->socket = connect_to(port);
  start_thread(&resolver_thread, resolve, r);
}

int64_t floor_serve_cpu_ns(void) { return thread_cpu_ns(resolver_thread); }

static struct bulk {
  const struct memory *memory;
  int socket;
  _Atomic uint64_t bytes;
} bulk;

static void *fill_lower_half(void *argument) {
  struct bulk *b = argument;
  static uint8_t piece[PIECE];
  const uint64_t size = b->memory->pages / 2 * PAGE;
  const struct request half = {.first_page = 0, .page_count = (uint32_t)(b->memory->pages / 2)};
  write_exactly(b->socket, &half, sizeof half);
  for (uint64_t done = 0;; done += PIECE) {
    const uint64_t offset = done % size;
    /* The next round is asked for while this one is on its way. */
    if (offset == 0) write_exactly(b->socket, &half, sizeof half);
    if (!read_exactly(b->socket, piece, PIECE)) fail_because("bulk", "the page server is gone");
    if (done >= size && fallocate(b->memory->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, PIECE) != 0)
      fail("fallocate to punch a hole");
    if (pwrite(b->memory->file, piece, PIECE, (off_t)offset) != PIECE) fail("pwrite to the memory file");
    atomic_fetch_add(&b->bytes, PIECE);
  }
  return NULL;
}

void floor_bulk_start(const struct memory *memory, int port) {
  if (memory->pages / 2 * PAGE % PIECE != 0) fail_because("PAGES", "bulk needs halves of whole pieces");
  bulk.memory = memory;
  bulk.socket = connect_to(port);
  start_thread(&bulk_thread, fill_lower_half, &bulk);
}

uint64_t floor_bulk_bytes(void) { return atomic_load(&bulk.bytes); }
int64_t floor_bulk_cpu_ns(void) { return thread_cpu_ns(bulk_thread); }
