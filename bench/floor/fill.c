/*
 * Memory that comes while nobody touches it, the same program whoever fills.
 *
 *   fill PAGES CONTENT[:FIRST] floor ADDRESS:PORT
 *   fill PAGES CONTENT[:FIRST] agent SOCKET:VM
 *
 * Prints `ready`, waits for SIGUSR1, asks for the memory, and prints `filled` once it has the last byte of it: when it asked, from when on faults were
 * served (the agent's `ready`) and when it was whole, by the clock that all processes of a machine share, and the CPU time that it took here (the floor's
 * own; with an agent only what waiting takes). At the next SIGUSR1 it looks at every byte, which must be the pages from FIRST on of CONTENT (content.h),
 * and ends after `verified`. In between it waits, as others that are filled at the same time may need the CPU.
 */
#include <arpa/inet.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "content.h"
#include "filler.h"

/* Cuts `text` at the last `separator` and returns what is behind it. */
static char *cut(char *text, char separator, const char *usage) {
  char *at = strrchr(text, separator);
  if (at == NULL) fail_because(text, usage);
  *at = '\0';
  return at + 1;
}

static int connect_to(const char *address, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, address, &to.sin_addr) != 1) fail_because(address, "no IPv4 address");
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) fail("connect to the page server");
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) fail("TCP_NODELAY");
  return fd;
}

/* One request for all of it, installed by write(): in shared memory that costs less than a fault or an ioctl a page. */
static void fetch(const struct memory *memory, const char *address, int port) {
  const int socket = connect_to(address, port);
  const struct request all = {.first_page = 0, .page_count = (uint32_t)memory->pages};
  write_exactly(socket, &all, sizeof all);
  static uint8_t piece[PIECE];
  const size_t size = memory->pages * PAGE;
  for (size_t done = 0; done < size;) {
    const size_t length = size - done < PIECE ? size - done : PIECE;
    if (!read_exactly(socket, piece, length)) fail_because("read", "the page server is gone");
    write_exactly(memory->file, piece, length);
    done += length;
  }
  close(socket);
}

static double cpu_seconds(void) {
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) != 0) fail("getrusage");
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void await_signal(void) {
  sigset_t go;
  sigemptyset(&go);
  sigaddset(&go, SIGUSR1);
  int signal;
  sigwait(&go, &signal);
}

int main(int argc, char **argv) {
  end_with_parent();
  /* Blocked before any thread is made, so that none of them takes it instead; one that comes early waits. */
  sigset_t go;
  sigemptyset(&go);
  sigaddset(&go, SIGUSR1);
  sigprocmask(SIG_BLOCK, &go, NULL);

  if (argc != 5) fail_because("usage", "fill PAGES CONTENT[:FIRST] floor ADDRESS:PORT|agent SOCKET:VM");
  const unsigned long pages = parse_count("PAGES", argv[1], 1, 1ul << 22);
  const unsigned long first = strchr(argv[2], ':') ? parse_count("FIRST", cut(argv[2], ':', ""), 0, 1ul << 32) : 0;
  const enum content content = parse_content(argv[2]);
  const int is_agent = strcmp(argv[3], "agent") == 0;
  if (!is_agent && strcmp(argv[3], "floor") != 0) fail_because(argv[3], "give `floor ADDRESS:PORT` or `agent SOCKET:VM`");
  const char *rest = cut(argv[4], ':', is_agent ? "give SOCKET:VM" : "give ADDRESS:PORT");
  const int port = is_agent ? 0 : (int)parse_count("PORT", rest, 1, 65535);
  const struct memory memory = memory_make(pages, UFFDIO_REGISTER_MODE_MISSING);
  /* Holes never come here: a fifth of the pages do. */
  memory_warm(&memory, content == CONTENT_HOLES ? pages / 4 : pages);
  dprintf(STDOUT_FILENO, "{\"event\":\"ready\"}\n");

  await_signal();
  const double cpu_before = cpu_seconds();
  const int64_t begin = now_ns();
  int64_t served = begin;
  if (is_agent) {
    agent_serve(&memory, argv[4], rest);
    served = now_ns();
    agent_await_done();
  } else {
    fetch(&memory, argv[4], port);
  }
  const int64_t end = now_ns();
  dprintf(STDOUT_FILENO, "{\"event\":\"filled\",\"beginNs\":%ld,\"servedNs\":%ld,\"endNs\":%ld,\"cpuSeconds\":%.4f}\n", (long)begin,
          (long)served, (long)end, cpu_seconds() - cpu_before);

  await_signal();
  content_verify(content, memory.file, first, pages);
  dprintf(STDOUT_FILENO, "{\"event\":\"verified\"}\n");
  /* Not return: the listener may still be reading. */
  _exit(0);
}
