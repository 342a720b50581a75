#include "channel.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "handshake.h"
#include "message.h"
#include "say.h"
#include "uffd.h"

/** Thread-local storage of all of QEMU's libraries comes out of it. */
#define STACK_BYTES (512 * 1024)
#define LINE_BYTES (64 * 1024)
#define FIRST_RETRY_MS 100
#define LAST_RETRY_MS 1000
#define RAM_POLL_MS 10
/** After this long whoever looks at the log shall see what is waited for. */
#define SILENCE_MS 5000

enum End { END_CLOSED, END_DONE, END_FAILED };

struct Channel {
  const struct Settings *settings;
  struct Ram *ram;
  unsigned retryMs;
  /** An agent has had the memory before. */
  bool again;
  /** A line has said that something is waited for. */
  bool complained;
};
static struct Channel channel;

static void rest(unsigned ms) {
  struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
}

/** Longer each time, until an agent takes the memory. */
static unsigned backOff(struct Channel *c) {
  const unsigned ms = c->retryMs;
  rest(ms);
  c->retryMs = ms * 2 > LAST_RETRY_MS ? LAST_RETRY_MS : ms * 2;
  return ms;
}

static void waitForRam(struct Channel *c) {
  const size_t wanted = c->settings->ramCount;
  unsigned waitedMs = 0;
  for (size_t count; (count = atomic_load_explicit(&c->ram->count, memory_order_acquire)) < wanted; waitedMs += RAM_POLL_MS) {
    if (waitedMs == SILENCE_MS)
      say("QEMU has mapped %zu of %zu RAM files; nothing is handed over before it has mapped all that PAGEWAKE_RAM names", count,
          wanted);
    rest(RAM_POLL_MS);
  }
}

static bool isLive(const struct Channel *c) { return atomic_load(&c->ram->phase) == PHASE_LIVE; }

/** A socket that may be slow to come: the agent makes it when it is told of the migration. */
static int connectToAgent(struct Channel *c) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, c->settings->socketPath, strlen(c->settings->socketPath));
  for (unsigned waitedMs = 0;;) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0) return fd;
    const int error = errno;
    if (fd >= 0) close(fd);
    if (waitedMs >= SILENCE_MS && !c->complained) {
      say("waiting for the destination agent at %s (%s)%s", c->settings->socketPath, strerror(error),
          isLive(c) ? "; until it is back, the guest waits wherever it touches memory that has not come yet" : "");
      c->complained = true;
    }
    waitedMs += backOff(c);
  }
}

static void onTaken(struct Channel *c) {
  c->retryMs = FIRST_RETRY_MS;
  if (c->complained) say("a destination agent has taken the memory");
  c->complained = false;
}

static enum End onFailed(const struct Channel *c, const struct Answer *answer) {
  if (answer->again && !isLive(c) && strcmp(answer->reason, "BAD_HANDSHAKE") == 0) {
    say("the destination agent does not take the memory yet: %s; trying again", answer->message);
    return END_CLOSED;
  }
  if (answer->again && !isLive(c)) {
    say("the migration has ended before anything came over (%s: %s); the memory will be handed to the next one", answer->reason,
        answer->message);
    return END_CLOSED;
  }
  // This connection was refused, the migration goes on: giving up here would leave the guest frozen for good.
  if (isLive(c) && strcmp(answer->reason, "BAD_HANDSHAKE") == 0) {
    say("the destination agent does not take the memory: %s; trying again", answer->message);
    return END_CLOSED;
  }
  if (!isLive(c)) refuse("the destination agent refuses this VM's memory: %s: %s", answer->reason, answer->message);
  say("the migration cannot be finished: %s: %s; memory that has not come over is lost", answer->reason, answer->message);
  return END_FAILED;
}

/** @returns true where the channel has ended, and how in `end` */
static bool onLine(struct Channel *c, const char *line, size_t length, enum End *end) {
  struct Answer answer;
  if (!readAnswer(line, length, &answer)) {
    say("whoever listens at %s is no destination agent: it says \"%.*s\"", c->settings->socketPath, (int)(length < 80 ? length : 80),
        line);
    *end = END_CLOSED;
    return true;
  }
  switch (answer.type) {
  case ANSWER_OTHER: return false;
  case ANSWER_HELD: onTaken(c); return false;
  case ANSWER_READY:
    onTaken(c);
    atomic_store(&c->ram->phase, PHASE_LIVE);
    return false;
  case ANSWER_DONE: *end = END_DONE; return true;
  case ANSWER_FAILED: *end = onFailed(c, &answer); return true;
  }
  return false;
}

static enum End readAnswers(struct Channel *c, int socket) {
  static char buffer[LINE_BYTES]; // one thread reads
  size_t have = 0;
  for (;;) {
    const ssize_t n = recv(socket, buffer + have, sizeof buffer - have, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return END_CLOSED;
    have += (size_t)n;
    size_t start = 0;
    for (char *newline; (newline = memchr(buffer + start, '\n', have - start)) != NULL;) {
      const size_t length = (size_t)(newline - buffer) - start;
      enum End end;
      if (onLine(c, buffer + start, length, &end)) return end;
      start += length + 1;
    }
    have -= start;
    memmove(buffer, buffer + start, have);
    if (have == sizeof buffer) {
      say("whoever listens at %s is no destination agent: it says %d bytes without a line's end", c->settings->socketPath, LINE_BYTES);
      return END_CLOSED;
    }
  }
}

/** One agent's turn. */
static enum End serve(struct Channel *c) {
  struct Ram *const ram = c->ram;
  const int socket = connectToAgent(c);
  // Faults that the last agent has read and not answered are asked of nobody any more: whoever waits faults again.
  if (c->again)
    for (size_t i = 0; i < atomic_load(&ram->count); i++) wakeAll(ram->uffd, ram->regions[i].address, ram->regions[i].bytes);
  c->again = true;
  const enum End end = sendHandshake(socket, c->settings, ram) ? readAnswers(c, socket) : END_CLOSED;
  close(socket);
  return end;
}

/** The agent has unregistered the memory, and no other copy of the userfaultfd is needed. */
static void letGo(struct Ram *ram) {
  atomic_store(&ram->phase, PHASE_DONE);
  const size_t count = atomic_exchange(&ram->count, 0);
  close(ram->uffd);
  for (size_t i = 0; i < count; i++) {
    struct Region *const region = &ram->regions[i];
    close(region->fd);
    if (atomic_load(&region->wantsHugePages)) (void)madvise((void *)region->address, region->bytes, MADV_HUGEPAGE);
  }
}

static void *run(void *argument) {
  struct Channel *const c = argument;
  pthread_setname_np(pthread_self(), "pagewake-shim");
  waitForRam(c);
  for (;;) {
    switch (serve(c)) {
    case END_CLOSED:
      backOff(c); // never a busy loop with an agent that takes connections and closes them
      break;
    case END_DONE:
      letGo(c->ram);
      return NULL;
    case END_FAILED:
      return NULL; // the userfaultfd stays: closed, it would turn what is missing into zeros
    }
  }
}

void startChannel(const struct Settings *settings, struct Ram *ram) {
  channel = (struct Channel){.settings = settings, .ram = ram, .retryMs = FIRST_RETRY_MS};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  // QEMU's signals are for QEMU's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, run, &channel);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (error != 0) refuse("no thread for the destination agent: %s", strerror(error));
}
