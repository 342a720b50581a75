#include "guest.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

static const char MODULES[] = "/modules";

void mount_all(void) {
  static const struct {
    const char *type, *at;
  } mounts[] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};
  for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
    mkdir(mounts[i].at, 0755);
    if (mount(mounts[i].type, mounts[i].at, mounts[i].type, 0, NULL) < 0) die(mounts[i].at);
  }
  // The kernel gave us /dev/console where there was one; the tests talk to the first serial port.
  const int tty = open("/dev/ttyS0", O_RDWR);
  if (tty < 0) die("/dev/ttyS0");
  struct termios settings;
  if (tcgetattr(tty, &settings) == 0) {
    cfmakeraw(&settings);
    tcsetattr(tty, TCSANOW, &settings);
  }
  for (int fd = 0; fd < 3; fd++) dup2(tty, fd);
}

static uint64_t number_of(const char *name, const char *text) {
  char *end;
  const uint64_t value = strtoull(text, &end, 10);
  if (*end != 0 || end == text) {
    errno = EINVAL;
    die(name);
  }
  return value;
}

static void set_address(char *text) {
  char *slash = strchr(text, '/');
  const uint64_t bits = slash ? number_of("pw.net", slash + 1) : 24;
  if (slash) *slash = 0;
  errno = EINVAL;
  if (bits == 0 || bits > 32 || inet_pton(AF_INET, text, &options.address) != 1) die("pw.net");
  options.netmask = htonl((uint32_t)(~0ull << (32 - bits)));
}

static void set_option(char *name, char *value) {
  const struct {
    const char *name;
    uint64_t *at;
  } numbers[] = {
      {"mem", &options.mem_mib},           {"zeros", &options.zeros_mib},    {"workers", &options.workers},
      {"rate", &options.pages_per_s},      {"diskRate", &options.blocks_per_s}, {"diskBuffer", &options.disk_buffer_mib},
  };
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (strcmp(name, numbers[i].name) == 0) {
      *numbers[i].at = number_of(name, value);
      return;
    }
  errno = EINVAL;
  if (strcmp(name, "disk") == 0) options.disk = number_of(name, value) != 0;
  else if (strcmp(name, "net") == 0) set_address(value);
  else if (strcmp(name, "fill") == 0 && strcmp(value, "random") == 0) options.pattern = PATTERN_RANDOM;
  else if (strcmp(name, "fill") == 0 && strcmp(value, "text") == 0) options.pattern = PATTERN_TEXT;
  else die(name);
}

void read_options(void) {
  options = (struct options){.mem_mib = 64, .zeros_mib = 4, .workers = 1, .disk_buffer_mib = 8};
  static char line[4096];
  const int fd = open("/proc/cmdline", O_RDONLY);
  if (fd < 0 || read(fd, line, sizeof line - 1) < 0) die("/proc/cmdline");
  close(fd);
  for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
    char *equals = strchr(word, '=');
    if (strncmp(word, "pw.", 3) != 0 || !equals) continue;
    *equals = 0;
    set_option(word + 3, equals + 1);
  }
  if (options.workers == 0 || options.workers > MAX_WORKERS) die("pw.workers");
}

static bool load(const char *name) {
  char path[300];
  snprintf(path, sizeof path, "%s/%s", MODULES, name);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(name);
  const bool loaded = syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST;
  // ENOENT: it needs symbols of one that comes later.
  if (!loaded && errno != ENOENT) die(name);
  close(fd);
  return loaded;
}

/** Which needs which differs between kernels: those that cannot be loaded yet are tried again after the others. */
void load_modules(void) {
  char *names[64];
  size_t left = 0;
  DIR *folder = opendir(MODULES);
  if (!folder) return;
  for (struct dirent *entry; (entry = readdir(folder)) && left < 64;)
    if (entry->d_name[0] != '.') names[left++] = strdup(entry->d_name);
  closedir(folder);
  while (left > 0) {
    size_t waiting = 0;
    for (size_t i = 0; i < left; i++)
      if (!load(names[i])) names[waiting++] = names[i];
    if (waiting == left) die(names[0]);
    left = waiting;
  }
}

static void put_address(struct sockaddr *at, uint32_t address) {
  const struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};
  memcpy(at, &in, sizeof in);
}

void configure_network(void) {
  if (options.address == 0) return;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {.ifr_name = "eth0"};
  put_address(&request.ifr_addr, options.address);
  if (fd < 0 || ioctl(fd, SIOCSIFADDR, &request) < 0) die("eth0: address");
  put_address(&request.ifr_netmask, options.netmask);
  if (ioctl(fd, SIOCSIFNETMASK, &request) < 0) die("eth0: netmask");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) die("eth0: up");
  close(fd);
}
