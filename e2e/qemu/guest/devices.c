// Work for the devices: a disk that is written and read back past the guest's page cache, and a server for a connection
// that has to outlive a migration.
#define _GNU_SOURCE
#include "pattern.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK_PAGES = 4, BLOCK_BYTES = BLOCK_PAGES * PAGE_BYTES, MAX_CLIENTS = 16, ECHO_PORT = 7, DISK_WAIT_MS = 10000 };

static int open_disk(void) {
  for (uint64_t waited_ms = 0; waited_ms < DISK_WAIT_MS; waited_ms += 10) {
    const int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd >= 0) return fd;
    usleep(10000);
  }
  die("/dev/vda");
}

void disk_workload(void) {
  const int fd = open_disk();
  uint64_t bytes;
  if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) die("BLKGETSIZE64");
  const uint64_t blocks = bytes / BLOCK_BYTES, slots = (options.disk_buffer_mib << 20) / BLOCK_BYTES;
  uint32_t *versions = reserve(blocks * sizeof *versions);
  // Many buffers, each used seldom: after a migration the device reads into memory that has not arrived.
  uint64_t *buffers = reserve(slots * BLOCK_BYTES);
  uint64_t random = mix(~0ull);
  const uint64_t started_ms = now_ms();
  for (uint64_t done = 0;; done++) {
    const uint64_t block = (draw(&random) >> 8) % blocks;
    const off_t at = (off_t)(block * BLOCK_BYTES);
    uint64_t *buffer = buffers + (draw(&random) >> 8) % slots * (BLOCK_BYTES / 8);
    if (versions[block] != 0) {
      if (pread(fd, buffer, BLOCK_BYTES, at) != BLOCK_BYTES) die("disk read");
      bool right = true;
      for (uint64_t i = 0; i < BLOCK_PAGES && right; i++)
        right = check_page(buffer + i * PAGE_WORDS, block * BLOCK_PAGES + i, versions[block], PATTERN_RANDOM, "disk");
      if (right) atomic_fetch_add(&shared->disk_blocks, 1);
    }
    versions[block]++;
    buffer = buffers + (draw(&random) >> 8) % slots * (BLOCK_BYTES / 8);
    for (uint64_t i = 0; i < BLOCK_PAGES; i++)
      fill_page(buffer + i * PAGE_WORDS, block * BLOCK_PAGES + i, versions[block], PATTERN_RANDOM);
    if (pwrite(fd, buffer, BLOCK_BYTES, at) != BLOCK_BYTES) die("disk write");
    pace(options.blocks_per_s, started_ms, done);
  }
}

static bool echo(int fd) {
  static char buffer[16384];
  const ssize_t got = read(fd, buffer, sizeof buffer);
  if (got <= 0) return false;
  for (ssize_t sent = 0; sent < got;) {
    const ssize_t n = send(fd, buffer + sent, (size_t)(got - sent), MSG_NOSIGNAL);
    if (n < 0) return false;
    sent += n;
  }
  atomic_fetch_add(&shared->echoed_bytes, (uint64_t)got);
  return true;
}

void echo_server(void) {
  struct pollfd fds[1 + MAX_CLIENTS];
  nfds_t count = 1;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(ECHO_PORT)};
  if (listener < 0 || bind(listener, (const struct sockaddr *)&any, sizeof any) < 0 || listen(listener, 16) < 0)
    die("echo server");
  fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
  for (;;) {
    if (poll(fds, count, -1) < 0 && errno != EINTR) die("poll");
    for (nfds_t i = count - 1; i >= 1; i--)
      if (fds[i].revents != 0 && !echo(fds[i].fd)) {
        close(fds[i].fd);
        fds[i] = fds[--count];
      }
    if (fds[0].revents == 0) continue;
    const int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) continue;
    if (count > MAX_CLIENTS) close(client);
    else fds[count++] = (struct pollfd){.fd = client, .events = POLLIN};
  }
}
