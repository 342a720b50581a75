/*
 * The source of both sides: memory in a memfd, which the floor's destination reads from here over TCP and pagewake's source agent as
 * /proc/PID/fd/N. So product and floor move the very same bytes.
 *
 *   page-server PAGES [CONTENT [ADDRESS]]     CONTENT: random (default), text, zeros, holes (content.h); ADDRESS to listen at: default 127.0.0.1
 *
 * Prints one JSON line with port and descriptor, then serves until it is killed. A connection has a thread: requests that are there together are
 * answered by one writev() straight from the mapping. No checksum, no ledger, no encryption: it is the floor.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common.h"
#include "content.h"

enum { BATCH = 64 };

static uint8_t *memory;
static unsigned long pages;

/* One call for many small runs: at 8 outstanding faults that is what a good server does. */
static void send_runs(int socket, const struct request *requests, size_t count) {
  struct iovec parts[BATCH];
  for (size_t i = 0; i < count; i++) {
    parts[i].iov_base = memory + (size_t)requests[i].first_page * PAGE;
    parts[i].iov_len = (size_t)requests[i].page_count * PAGE;
  }
  for (size_t at = 0; at < count;) {
    ssize_t n = writev(socket, parts + at, (int)(count - at));
    if (n < 0 && errno == EINTR) continue;
    /* The destination has what it wanted and is gone; whether that is an error is its harness's to say. */
    if (n < 0) return;
    for (; at < count && (size_t)n >= parts[at].iov_len; at++) n -= (ssize_t)parts[at].iov_len;
    if (at == count) break;
    parts[at].iov_base = (uint8_t *)parts[at].iov_base + n;
    parts[at].iov_len -= (size_t)n;
  }
}

static void *serve(void *argument) {
  const int socket = (int)(intptr_t)argument;
  struct request requests[BATCH];
  size_t bytes = 0;
  for (;;) {
    const ssize_t n = read(socket, (uint8_t *)requests + bytes, sizeof requests - bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    bytes += (size_t)n;
    const size_t count = bytes / sizeof(struct request);
    for (size_t i = 0; i < count; i++)
      if ((uint64_t)requests[i].first_page + requests[i].page_count > pages) fail_because("request", "pages that are not there");
    send_runs(socket, requests, count);
    /* Half a request can come at the end of a read. */
    bytes -= count * sizeof(struct request);
    for (size_t i = 0; i < bytes; i++) ((uint8_t *)requests)[i] = ((uint8_t *)(requests + count))[i];
  }
  close(socket);
  return NULL;
}

int main(int argc, char **argv) {
  end_with_parent();
  /* A destination that is through while its bulk is on the way is gone, and the next one comes. */
  signal(SIGPIPE, SIG_IGN);
  pages = parse_count("PAGES", argc >= 2 && argc <= 4 ? argv[1] : NULL, 1, 1ul << 22);
  const enum content content = parse_content(argc > 2 ? argv[2] : "random");
  const char *at = argc > 3 ? argv[3] : "127.0.0.1";
  const int file = memfd_create("bench-source", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, (off_t)(pages * PAGE)) != 0) fail("memfd");
  memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) fail("mmap");
  content_fill(content, memory, pages);

  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET};
  if (inet_pton(AF_INET, at, &address.sin_addr) != 1) fail_because(at, "no IPv4 address");
  socklen_t length = sizeof address;
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 8) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &length) != 0)
    fail("listen");
  dprintf(STDOUT_FILENO, "{\"event\":\"listening\",\"port\":%d,\"fd\":%d}\n", ntohs(address.sin_port), file);

  for (;;) {
    const int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (accepted < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (accepted < 0) fail("accept");
    const int on = 1;
    if (setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) fail("TCP_NODELAY");
    pthread_t thread;
    errno = pthread_create(&thread, NULL, serve, (void *)(intptr_t)accepted);
    if (errno != 0) fail("pthread_create");
    pthread_detach(thread);
  }
}
