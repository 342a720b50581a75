/*
 * A process whose memory is somebody else's to fill: what a VMM is to the destination agent, without a guest. Its threads touch
 * memory on command and say what they saw; whoever fills it sits in another process, as a thread that resolves faults must never touch
 * unresolved memory itself.
 *
 *   toucher memory=memfd|anonymous files=N pages=N workers=N features=BITS minor=0|1 register=0|1 prefill=PAGE:BYTE
 *
 * Commands on standard input, one a line; answers on standard output, one a line, as things happen:
 *   handover PATH um JSON   connect to PATH, send JSON and a newline with the descriptors (u: userfaultfd, m: the next memfd, b: a bitmap)
 *   send TEXT               one more line on that channel
 *   touch W PAGE            worker W reads the page         -> touched W PAGE CRC32 | sigbus W PAGE
 *   store W PAGE BYTE       worker W fills the page         -> touched W PAGE CRC32 | sigbus W PAGE
 *   remove W PAGE COUNT     worker W gives pages back       -> removed W PAGE ERRNO
 *   churn W PAGE COUNT STEP gives back every STEP-th page, reading it at once -> churned W FAILED NONZERO
 *   filled PAGE             is the page in the page table?  -> filled PAGE 0|1
 *   bit PAGE                is its bit in the bitmap set?   -> bit PAGE 0|1
 * It ends with its standard input.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE 4096ul
#define MAX_WORKERS 16
#define MAX_FILES 4

struct order {
  char what;
  unsigned long page, count, step;
};

struct worker {
  pthread_t thread;
  pid_t tid;
  int index;
  int orders[2];
};

static unsigned char *memory;
static int anonymous;
static int uffd = -1, channel = -1, bitmap_fd = -1;
/* One bit a page, as a VMM has it whose vCPUs exit on a set one; nobody runs here who would. */
static unsigned char *bitmap;
static int memfds[MAX_FILES] = {-1, -1, -1, -1};
static struct worker workers[MAX_WORKERS];
static pthread_barrier_t started;
static __thread sigjmp_buf on_sigbus;

static void fail(const char *what) {
  fprintf(stderr, "toucher: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint32_t crc32_of(const unsigned char *bytes, size_t length) {
  uint32_t crc = ~0u;
  for (size_t i = 0; i < length; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
  }
  return ~crc;
}

static void sigbus(int number) {
  (void)number;
  siglongjmp(on_sigbus, 1);
}

static int all_zero(const volatile unsigned char *page) {
  for (size_t i = 0; i < PAGE; i++)
    if (page[i] != 0) return 0;
  return 1;
}

/* MADV_DONTNEED on a shared mapping would leave the page in the file: only MADV_REMOVE gives that back. */
static int give_back(unsigned long page, unsigned long count) {
  return madvise(memory + page * PAGE, count * PAGE, anonymous ? MADV_DONTNEED : MADV_REMOVE) == 0 ? 0 : errno;
}

static void obey(struct worker *self, const struct order *order) {
  unsigned char *page = memory + order->page * PAGE;
  switch (order->what) {
    case 't':
    case 's':
      if (sigsetjmp(on_sigbus, 1) != 0) {
        dprintf(1, "sigbus %d %lu\n", self->index, order->page);
        return;
      }
      if (order->what == 's') memset(page, (int)order->count, PAGE);
      dprintf(1, "touched %d %lu %u\n", self->index, order->page, crc32_of(page, PAGE));
      return;
    case 'r':
      dprintf(1, "removed %d %lu %d\n", self->index, order->page, give_back(order->page, order->count));
      return;
    case 'c': {
      unsigned long failed = 0, nonzero = 0;
      for (unsigned long i = 0; i < order->count; i += order->step) {
        if (give_back(order->page + i, 1) != 0) failed++;
        if (!all_zero(page + i * PAGE)) nonzero++;
      }
      dprintf(1, "churned %d %lu %lu\n", self->index, failed, nonzero);
      return;
    }
  }
}

static void *work(void *argument) {
  struct worker *self = argument;
  self->tid = (pid_t)syscall(SYS_gettid);
  pthread_barrier_wait(&started);
  struct order order;
  while (read(self->orders[0], &order, sizeof order) == sizeof order) obey(self, &order);
  return NULL;
}

/* Firecracker's messages are flat objects, and nothing stands between them. */
static void *listen_to_channel(void *argument) {
  int end = *(char *)argument == '[' ? '}' : '\n';
  free(argument);
  FILE *in = fdopen(dup(channel), "r");
  char *line = NULL;
  size_t room = 0;
  while (in != NULL && getdelim(&line, &room, end, in) > 0) dprintf(1, "channel %s%s", line, end == '\n' ? "" : "\n");
  dprintf(1, "closed\n");
  return NULL;
}

static void hand_over(const char *path, const char *which, const char *json) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  channel = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (channel < 0 || connect(channel, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  char *text;
  int length = asprintf(&text, "%s\n", json);
  if (length < 0) fail("asprintf");
  int fds[8];
  size_t count = 0, file = 0;
  for (; count < 8 && (which[count] == 'u' || which[count] == 'b' || (which[count] == 'm' && file < MAX_FILES)); count++)
    fds[count] = which[count] == 'u' ? uffd : which[count] == 'b' ? bitmap_fd : memfds[file++];
  union {
    char bytes[CMSG_SPACE(sizeof fds)];
    struct cmsghdr align;
  } control = {0};
  struct iovec data = {.iov_base = text, .iov_len = (size_t)length};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  if (sendmsg(channel, &message, MSG_NOSIGNAL) != length) fail("sendmsg");
  pthread_t listener;
  if (pthread_create(&listener, NULL, listen_to_channel, text) != 0) fail("pthread_create");
}

static int in_page_table(unsigned long page) {
  uint64_t entry = 0;
  int fd = open("/proc/self/pagemap", O_RDONLY);
  if (fd < 0 || pread(fd, &entry, sizeof entry, (off_t)(((uintptr_t)memory / PAGE + page) * sizeof entry)) != sizeof entry)
    fail("/proc/self/pagemap");
  close(fd);
  return (int)(entry >> 63);
}

static void open_uffd(unsigned long features, size_t size, int minor) {
  uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  if (uffd < 0) fail("userfaultfd");
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (ioctl(uffd, UFFDIO_API, &api) != 0) fail("UFFDIO_API");
  struct uffdio_register range = {.range = {.start = (uintptr_t)memory, .len = size},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING | (minor ? UFFDIO_REGISTER_MODE_MINOR : 0)};
  if (ioctl(uffd, UFFDIO_REGISTER, &range) != 0) fail("UFFDIO_REGISTER");
}

static void command(char *line) {
  struct order order = {.step = 1};
  unsigned worker;
  unsigned long page;
  char path[128], which[16];
  int rest = 0;
  line[strcspn(line, "\n")] = '\0';
  if (sscanf(line, "touch %u %lu", &worker, &order.page) == 2) order.what = 't';
  else if (sscanf(line, "store %u %lu %lu", &worker, &order.page, &order.count) == 3) order.what = 's';
  else if (sscanf(line, "remove %u %lu %lu", &worker, &order.page, &order.count) == 3) order.what = 'r';
  else if (sscanf(line, "churn %u %lu %lu %lu", &worker, &order.page, &order.count, &order.step) == 4) order.what = 'c';
  else if (sscanf(line, "filled %lu", &page) == 1) {
    dprintf(1, "filled %lu %d\n", page, in_page_table(page));
    return;
  } else if (sscanf(line, "bit %lu", &page) == 1) {
    dprintf(1, "bit %lu %d\n", page, (__atomic_load_n(&bitmap[page >> 3], __ATOMIC_ACQUIRE) >> (page & 7)) & 1);
    return;
  } else if (sscanf(line, "handover %127s %15s %n", path, which, &rest) >= 2 && rest > 0) {
    hand_over(path, which, line + rest);
    return;
  } else if (strncmp(line, "send ", 5) == 0) {
    dprintf(channel, "%s\n", line + 5);
    return;
  } else {
    errno = EINVAL;
    fail(line);
  }
  if (worker >= MAX_WORKERS || write(workers[worker].orders[1], &order, sizeof order) != sizeof order) fail("order");
}

/* Side by side in the address space, each as large as the others. */
static void map_files(size_t size, int files) {
  if (files < 1 || files > MAX_FILES || size % ((size_t)files * PAGE) != 0) {
    errno = EINVAL;
    fail("files");
  }
  size_t part = size / (size_t)files;
  for (int i = 0; i < files; i++) {
    memfds[i] = memfd_create("guest", MFD_CLOEXEC);
    if (memfds[i] < 0 || ftruncate(memfds[i], (off_t)part) != 0) fail("memfd_create");
    void *at = memory + (size_t)i * part;
    if (mmap(at, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfds[i], 0) != at) fail("mmap");
  }
}

static void make_bitmap(unsigned long pages) {
  size_t bytes = (pages + 63) / 64 * 8;
  bitmap_fd = memfd_create("bitmap", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (bitmap_fd < 0 || ftruncate(bitmap_fd, (off_t)bytes) != 0 || fcntl(bitmap_fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) fail("bitmap");
  bitmap = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bitmap_fd, 0);
  if (bitmap == MAP_FAILED) fail("bitmap");
  memset(bitmap, 0xff, bytes);
}

int main(int argc, char **argv) {
  unsigned long pages = 16, features = 0, prefill_page = 0;
  int count = 1, files = 1, minor = 0, registers = 1, prefill_byte = -1;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "memory=memfd") == 0) anonymous = 0;
    else if (strcmp(argv[i], "memory=anonymous") == 0) anonymous = 1;
    else if (sscanf(argv[i], "pages=%lu", &pages) + sscanf(argv[i], "workers=%d", &count) + sscanf(argv[i], "files=%d", &files) +
                 sscanf(argv[i], "features=%lu", &features) + sscanf(argv[i], "minor=%d", &minor) +
                 sscanf(argv[i], "register=%d", &registers) +
                 sscanf(argv[i], "prefill=%lu:%d", &prefill_page, &prefill_byte) < 1) {
      errno = EINVAL;
      fail(argv[i]);
    }
  }
  size_t size = pages * PAGE;
  memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  if (!anonymous) map_files(size, files);
  /* A huge page would fill the neighbours of the page that was touched. */
  madvise(memory, size, MADV_NOHUGEPAGE);
  if (prefill_byte >= 0) memset(memory + prefill_page * PAGE, prefill_byte, PAGE);
  make_bitmap(pages);
  if (registers) open_uffd(features, size, minor);

  struct sigaction action = {.sa_handler = sigbus};
  sigaction(SIGBUS, &action, NULL);
  pthread_barrier_init(&started, NULL, (unsigned)count + 1);
  for (int i = 0; i < count; i++) {
    workers[i].index = i;
    if (pipe(workers[i].orders) != 0 || pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) fail("worker");
  }
  pthread_barrier_wait(&started);
  char threads[256] = "";
  for (int i = 0; i < count; i++) {
    size_t used = strlen(threads);
    snprintf(threads + used, sizeof threads - used, "%s%d", i > 0 ? "," : "", workers[i].tid);
  }
  dprintf(1, "ready {\"address\":%lu,\"threads\":[%s]}\n", (unsigned long)(uintptr_t)memory, threads);

  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) command(line);
  _exit(0);
}
