/*
 * The destination of both sides: memory that another fills, and threads that touch it. What the touching thread sees is timed here, by the same code
 * and the same clock, whoever fills.
 *
 *   destination PAGES floor PORT        fill | NAME:TOUCHES:THREADS:GAP_US ...
 *   destination PAGES agent SOCKET:VM   fill | NAME:TOUCHES:THREADS:GAP_US ...
 *
 * Walks: prints {"event":"ready"}, waits for SIGUSR1 (the harness pauses prefetch in between), prints a line a walk, then
 * {"event":"finished"}, and waits to be killed. `fill`: nobody touches; one line with the time from asking to whole.
 */
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "filler.h"
#include "touch.h"

enum { MAX_WALKS = 16 };

struct filler {
  int is_agent;
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
  if (sscanf(text, "%31[A-Za-z0-9]:%lu:%lu:%lu%n", walk.name, &walk.touches, &walk.threads, &walk.gap_us, &end) != 4 ||
      text[end] != '\0' || walk.touches == 0 || walk.threads == 0 || walk.threads > MAX_THREADS)
    fail_because(text, "give NAME:TOUCHES:THREADS:GAP_US with at most 64 threads");
  return walk;
}

static void fill(const struct memory *memory, const struct filler *filler) {
  const int64_t begin = now_ns();
  if (filler->is_agent) {
    agent_serve(memory, filler->socket, filler->vm);
    agent_await_done();
  } else {
    floor_fill(memory, filler->port);
  }
  const double seconds = (double)(now_ns() - begin) / 1e9;
  verify_file(memory);
  dprintf(STDOUT_FILENO, "{\"event\":\"filled\",\"bytes\":%zu,\"megabytesPerSecond\":%.1f}\n", memory->pages * PAGE,
          (double)(memory->pages * PAGE) / 1e6 / seconds);
}

static void walk_all(const struct memory *memory, const struct filler *filler, char **plan, int count) {
  struct walk walks[MAX_WALKS];
  if (count > MAX_WALKS) fail_because("walks", "16 at most");
  for (int i = 0; i < count; i++) walks[i] = parse_walk(plan[i]);
  /* Blocked before any thread is made, so that none of them takes the signal instead. */
  sigset_t go;
  sigemptyset(&go);
  sigaddset(&go, SIGUSR1);
  sigprocmask(SIG_BLOCK, &go, NULL);
  if (filler->is_agent) agent_serve(memory, filler->socket, filler->vm);
  else floor_serve(memory, filler->port);
  dprintf(STDOUT_FILENO, "{\"event\":\"ready\"}\n");
  int signal;
  sigwait(&go, &signal);
  unsigned long next = 0;
  for (int i = 0; i < count; i++) walk_run(memory, &walks[i], &next);
  dprintf(STDOUT_FILENO, "{\"event\":\"finished\",\"touches\":%lu}\n", next);
  for (;;) pause();
}

int main(int argc, char **argv) {
  end_with_parent();
  if (argc < 5) fail_because("usage", "destination PAGES floor PORT|agent SOCKET:VM fill|NAME:TOUCHES:THREADS:GAP_US ...");
  const unsigned long pages = parse_count("PAGES", argv[1], 2, 1ul << 22);
  if ((pages & (pages - 1)) != 0) fail_because("PAGES", "must be a power of two");
  const struct filler filler = parse_filler(argv[2], argv[3]);
  const int fills = strcmp(argv[4], "fill") == 0;
  struct memory memory = memory_make(pages, UFFDIO_REGISTER_MODE_MISSING);
  if (fills) fill(&memory, &filler);
  else walk_all(&memory, &filler, argv + 4, argc - 4);
  /* Not return: the listener may still be reading. */
  _exit(0);
}
