/*
 * The destination of both sides: memory that another fills, and threads that touch it. What the touching thread sees is timed here, by the same code
 * and the same clock, whoever fills.
 *
 *   destination PAGES floor PORT        [bulk] NAME:MS:THREADS:GAP_US ...
 *   destination PAGES agent SOCKET:VM   [bulk] NAME:MS:THREADS:GAP_US ...
 *
 * Walks: prints {"event":"ready"}, waits for SIGUSR1 before each walk (whoever measures CPU time looks at it in between) and prints a line after it, then
 * {"event":"finished"}, and waits to be killed. `bulk`: the rest of memory comes meanwhile; the product's prefetch does that unless it is paused, the floor
 * begins a stream for it.
 */
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"
#include "filler.h"
#include "touch.h"

enum { MAX_WALKS = 16 };

struct filler {
  int is_agent, bulk;
  int port;
  char *socket;
  char *vm;
};

static struct filler parse_filler(char *kind, char *where) {
  if (strcmp(kind, "floor") == 0) return (struct filler){.port = (int)parse_count("PORT", where, 1, 65535)};
  char *colon = strrchr(where, ':');
  if (strcmp(kind, "agent") != 0 || colon == NULL) fail_because(kind, "give `floor PORT` or `agent SOCKET:VM`");
  *colon = '\0';
  return (struct filler){.is_agent = 1, .socket = where, .vm = colon + 1};
}

static struct walk parse_walk(const char *text) {
  struct walk walk = {0};
  int end = 0;
  if (sscanf(text, "%31[A-Za-z0-9]:%lu:%lu:%lu%n", walk.name, &walk.ms, &walk.threads, &walk.gap_us, &end) != 4 ||
      text[end] != '\0' || walk.ms == 0 || walk.threads == 0 || walk.threads > MAX_THREADS)
    fail_because(text, "give NAME:MS:THREADS:GAP_US with at most 64 threads");
  return walk;
}

/* What the file holds. Where nothing is ever taken out of it that is what has come. */
static uint64_t bytes_in_file(const struct memory *memory) {
  struct stat status;
  if (fstat(memory->file, &status) != 0) fail("fstat of the memory file");
  return (uint64_t)status.st_blocks * 512;
}

/* So far, and without what was touched. The agent's is told from the file: so it is what has come, not what was sent. */
static uint64_t bulk_bytes(const struct memory *memory, const struct filler *filler, uint64_t touched) {
  if (!filler->is_agent) return filler->bulk ? floor_bulk_bytes() : 0;
  return bytes_in_file(memory) - touched * PAGE;
}

/* Of this process's own part: the agents and the page server are processes, and are looked at from outside. */
static int64_t filler_cpu_ns(const struct filler *filler) {
  if (filler->is_agent) return 0;
  return floor_serve_cpu_ns() + (filler->bulk ? floor_bulk_cpu_ns() : 0);
}

static void walk_one(const struct memory *memory, const struct filler *filler, const struct walk *walk, unsigned long *next,
                     unsigned long *touched) {
  const uint64_t bytes = bulk_bytes(memory, filler, *touched);
  const int64_t cpu_ns = filler_cpu_ns(filler);
  const struct walked walked = walk_run(memory, walk, next);
  *touched += walked.touches;
  const double bulk_mb = (double)(bulk_bytes(memory, filler, *touched) - bytes) / 1e6;
  dprintf(STDOUT_FILENO,
          "{\"event\":\"walked\",\"name\":\"%s\",\"touches\":%lu,\"passed\":%lu,\"seconds\":%.6f,\"p50Us\":%.2f,\"p99Us\":%.2f,"
          "\"p999Us\":%.2f,\"maxUs\":%.2f,\"faultsPerSecond\":%.1f,\"bulkMegabytes\":%.3f,\"bulkMegabytesPerSecond\":%.1f,"
          "\"fillerCpuSeconds\":%.6f}\n",
          walk->name, walked.touches, walked.passed, walked.seconds, walked.p50_us, walked.p99_us, walked.p999_us, walked.longest_us,
          (double)walked.touches / walked.seconds, bulk_mb, bulk_mb / walked.seconds, (double)(filler_cpu_ns(filler) - cpu_ns) / 1e9);
}

static _Noreturn void walk_all(const struct memory *memory, struct filler *filler, char **plan, int count) {
  filler->bulk = strcmp(plan[0], "bulk") == 0;
  if (filler->bulk) plan++, count--;
  if (count < 1 || count > MAX_WALKS) fail_because("walks", "give 1 to 16");
  struct walk walks[MAX_WALKS];
  for (int i = 0; i < count; i++) {
    walks[i] = parse_walk(plan[i]);
    if (filler->bulk && filler->is_agent) walks[i].bulk_is_over = agent_is_done;
  }
  /* Blocked before any thread is made, so that none of them takes the signal instead. */
  sigset_t go;
  sigemptyset(&go);
  sigaddset(&go, SIGUSR1);
  sigprocmask(SIG_BLOCK, &go, NULL);
  if (filler->is_agent) agent_serve(memory, filler->socket, filler->vm);
  else floor_serve(memory, filler->port);
  if (filler->bulk && !filler->is_agent) floor_bulk_start(memory, filler->port);
  dprintf(STDOUT_FILENO, "{\"event\":\"ready\"}\n");
  unsigned long next = 0, touched = 0;
  for (int i = 0; i < count; i++) {
    int signal;
    sigwait(&go, &signal);
    walk_one(memory, filler, &walks[i], &next, &touched);
  }
  dprintf(STDOUT_FILENO, "{\"event\":\"finished\",\"touches\":%lu}\n", touched);
  for (;;) pause();
}

int main(int argc, char **argv) {
  end_with_parent();
  if (argc < 5) fail_because("usage", "destination PAGES floor PORT|agent SOCKET:VM [bulk] NAME:MS:THREADS:GAP_US ...");
  const unsigned long pages = parse_count("PAGES", argv[1], 2, 1ul << 22);
  if ((pages & (pages - 1)) != 0) fail_because("PAGES", "must be a power of two");
  struct filler filler = parse_filler(argv[2], argv[3]);
  struct memory memory = memory_make(pages, UFFDIO_REGISTER_MODE_MISSING);
  walk_all(&memory, &filler, argv + 4, argc - 4);
}
