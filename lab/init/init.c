// The first process of the lab's kernel. Its root is the machine's own, read-only over 9p, below a layer in memory that takes what is written;
// in it one shell script runs, and how that ended is said on the console. Static, as there is nothing else in its archive.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void end(void) {
  sync();
  reboot(RB_AUTOBOOT); // QEMU runs with -no-reboot: it ends
  for (;;) pause();
}

static void die(const char *what) {
  printf("@lab died %s: %s\n", what, strerror(errno));
  fflush(stdout);
  end();
}

struct mounted {
  const char *what, *at, *type, *options;
  unsigned long flags;
};

// As large as they may be and not larger: the lab has no swap, and what is in memory is what the guests do not get.
#define MESSAGE_BYTES "msize=512000"
static const struct mounted MOUNTS[] = {
    {"proc", "/proc", "proc", "", 0},
    {"sys", "/sys", "sysfs", "", 0},
    {"root", "/ro", "9p", "trans=virtio,version=9p2000.L,cache=loose," MESSAGE_BYTES, MS_RDONLY},
    {"rw", "/rw", "tmpfs", "", 0},
    {"root", "/new", "overlay", "lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work", 0},
    {"proc", "/new/proc", "proc", "", 0},
    {"sys", "/new/sys", "sysfs", "", 0},
    {"dev", "/new/dev", "devtmpfs", "", 0},
    {"shm", "/new/dev/shm", "tmpfs", "", 0},
    {"pts", "/new/dev/pts", "devpts", "", 0},
    {"run", "/new/run", "tmpfs", "mode=755", 0},
    {"results", "/new/run/lab", "9p", "trans=virtio,version=9p2000.L," MESSAGE_BYTES, 0},
};

static void mount_all(void) {
  for (size_t i = 0; i < sizeof MOUNTS / sizeof *MOUNTS; i++) {
    const struct mounted *m = &MOUNTS[i];
    mkdir(m->at, 0755); // there already in most cases; where it cannot be made, the mount says so
    if (mount(m->what, m->at, m->type, m->flags, m->options) < 0) die(m->at);
    if (strcmp(m->at, "/rw") == 0 && (mkdir("/rw/upper", 0755) < 0 || mkdir("/rw/work", 0755) < 0)) die("/rw");
  }
}

static void open_console(void) {
  const int tty = open("/dev/ttyS0", O_RDWR);
  if (tty < 0) die("/dev/ttyS0");
  for (int fd = 0; fd < 3; fd++) dup2(tty, fd);
  if (tty > 2) close(tty);
  setvbuf(stdout, NULL, _IOLBF, 0);
}

static void loopback_up(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) die("lo");
  close(fd);
}

static void run_script(void) {
  char *const arguments[] = {"sh", "/run/lab/run", NULL};
  char *const environment[] = {"HOME=/root", "TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
  // A session with a terminal, so that a shell can stop and continue what it started.
  setsid();
  ioctl(STDIN_FILENO, TIOCSCTTY, 1);
  if (chroot("/new") < 0 || chdir("/") < 0) die("/new");
  execve("/bin/sh", arguments, environment);
  die("/bin/sh");
}

// 512: a WARN was printed, 128: an oops. Their lines may have been torn by a program's own.
static long taint(void) {
  char text[32] = "";
  const int fd = open("/proc/sys/kernel/tainted", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || read(fd, text, sizeof text - 1) < 0) die("/proc/sys/kernel/tainted");
  close(fd);
  return strtol(text, NULL, 10);
}

int main(void) {
  mount("dev", "/dev", "devtmpfs", 0, ""); // where it fails there is no console to say so
  open_console();
  mount_all();
  loopback_up();
  printf("@lab up\n");
  const pid_t script = fork();
  if (script < 0) die("fork");
  if (script == 0) run_script();
  for (;;) {
    int status;
    const pid_t ended = wait(&status); // also what others left behind
    if (ended < 0 && errno != EINTR) die("wait");
    if (ended != script) continue;
    kill(-1, SIGKILL);
    open_console(); // the session's end hung up the old one
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    printf("\n@lab ended %d tainted %ld\n", code, taint());
    fflush(stdout);
    tcdrain(STDOUT_FILENO);
    end();
  }
}
