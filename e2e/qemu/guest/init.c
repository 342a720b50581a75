#include "guest.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct options options;
struct shared *shared;

/** A process of its own for each: what one of them waits for keeps no other. */
static void start(void (*body)(void)) {
  const pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) body();
}

int main(void) {
  mount_all();
  read_options();
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (shared == MAP_FAILED) die("shared memory");
  load_modules();
  configure_network();
  start(heartbeats);
  start(commands);
  if (options.disk) start(disk_workload);
  if (options.address != 0) start(echo_server);
  start(memory_workload);
  for (;;) {
    int status;
    wait(&status);
    die("a process of the guest ended");
  }
}
