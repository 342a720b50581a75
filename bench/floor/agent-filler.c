#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common.h"
#include "filler.h"

/* One channel a program: the handshake's descriptors are the whole of its memory. */
static struct {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int socket;
  int ready, done;
} channel = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .socket = -1};

static int connect_to(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail_because(path, "too long for a Unix socket");
  strcpy(address.sun_path, path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect to the destination agent");
  return fd;
}

static void send_handshake(const struct memory *memory, const char *vm) {
  char json[512];
  const int length = snprintf(json, sizeof json,
                              "{\"protocol\":\"pagewake/1\",\"vm\":\"%s\",\"regions\":[{\"base_host_virt_addr\":%lu,\"size\":%zu,"
                              "\"offset\":0,\"page_size\":%d}],\"fds\":[\"uffd\",\"memfd\"],\"registered\":[\"missing\"],\"vcpus\":[]}\n",
                              vm, (unsigned long)(uintptr_t)memory->at, memory->pages * PAGE, PAGE);
  if (length < 0 || (size_t)length >= sizeof json) fail_because("VM", "its name is too long");
  const int fds[2] = {memory->uffd, memory->file};
  union {
    char bytes[CMSG_SPACE(sizeof fds)];
    struct cmsghdr align;
  } control = {0};
  struct iovec data = {.iov_base = json, .iov_len = (size_t)length};
  struct msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fds);
  memcpy(CMSG_DATA(header), fds, sizeof fds);
  if (sendmsg(channel.socket, &message, MSG_NOSIGNAL) != length) fail("sendmsg of the handshake");
}

static void set(int *flag) {
  pthread_mutex_lock(&channel.mutex);
  *flag = 1;
  pthread_cond_broadcast(&channel.changed);
  pthread_mutex_unlock(&channel.mutex);
}

static void await(const int *flag) {
  pthread_mutex_lock(&channel.mutex);
  while (!*flag) pthread_cond_wait(&channel.changed, &channel.mutex);
  pthread_mutex_unlock(&channel.mutex);
}

/* The messages that can come here are few and the agent's own, so they are told apart by their type's text alone. */
static void *listen_to_agent(void *argument) {
  (void)argument;
  FILE *in = fdopen(channel.socket, "r");
  if (in == NULL) fail("fdopen");
  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, in) > 0) {
    if (strstr(line, "\"type\":\"ready\"") != NULL) set(&channel.ready);
    else if (strstr(line, "\"type\":\"done\"") != NULL) set(&channel.done);
    else fail_because("the agent says", line);
  }
  /* Set by this thread alone. Without it whoever touches would wait for ever. */
  if (!channel.done) fail_because("the agent", "closed the channel before it was done (its log says why)");
  return NULL;
}

void agent_serve(const struct memory *memory, const char *socket_path, const char *vm) {
  channel.socket = connect_to(socket_path);
  send_handshake(memory, vm);
  pthread_t thread;
  errno = pthread_create(&thread, NULL, listen_to_agent, NULL);
  if (errno != 0) fail("pthread_create");
  pthread_detach(thread);
  await(&channel.ready);
}

void agent_await_done(void) { await(&channel.done); }

int agent_is_done(void) {
  pthread_mutex_lock(&channel.mutex);
  const int done = channel.done;
  pthread_mutex_unlock(&channel.mutex);
  return done;
}
