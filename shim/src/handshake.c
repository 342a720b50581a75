#include "handshake.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "given-back.h"
#include "say.h"

/** A path of every region, and each of its bytes written as an escape: it does not come to that. */
#define TEXT_BYTES (192 * 1024)

struct Text {
  size_t length;
  char bytes[TEXT_BYTES];
};

__attribute__((format(printf, 2, 3))) static void add(struct Text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int n = vsnprintf(text->bytes + text->length, TEXT_BYTES - text->length, format, arguments);
  va_end(arguments);
  if (n < 0 || text->length + (size_t)n >= TEXT_BYTES) refuse("the names of the RAM files are too long for a handshake");
  text->length += (size_t)n;
}

static void addString(struct Text *text, const char *string) {
  add(text, "\"");
  for (const char *c = string; *c != '\0'; c++) {
    if (*c == '"' || *c == '\\') add(text, "\\%c", *c);
    else if ((unsigned char)*c < ' ') add(text, "\\u%04x", (unsigned)*c);
    else add(text, "%c", *c);
  }
  add(text, "\"");
}

/** Regions come and go no more once a guest runs, so each range is in one of them. */
static void addGivenBack(struct Text *text, const struct Region *const *regions, size_t count) {
  static struct Range ranges[MAX_GIVEN_BACK];
  const size_t known = lastGivenBack(ranges);
  const char *comma = "";
  add(text, ",\"given_back\":[");
  for (size_t r = 0; r < known; r++) {
    size_t offset = 0;
    for (size_t i = 0; i < count; offset += regions[i++]->bytes) {
      const uintptr_t start = regions[i]->address;
      if (ranges[r].address < start || ranges[r].address >= start + regions[i]->bytes) continue;
      add(text, "%s{\"offset\":%zu,\"len\":%zu}", comma, offset + (ranges[r].address - start), ranges[r].bytes);
      comma = ",";
    }
  }
  add(text, "]");
}

static void writeText(struct Text *text, const struct Settings *settings, const struct Region *const *regions, size_t count, bool live) {
  text->length = 0;
  add(text, "{\"protocol\":\"pagewake/1\",");
  if (settings->vm != NULL) {
    add(text, "\"vm\":");
    addString(text, settings->vm);
    add(text, ",");
  }
  add(text, "\"regions\":[");
  size_t offset = 0;
  for (size_t i = 0; i < count; i++) {
    const struct Region *const region = regions[i];
    add(text, "%s{\"name\":", i > 0 ? "," : "");
    addString(text, region->file.name);
    add(text, ",\"base_host_virt_addr\":%zu,\"size\":%zu,\"offset\":%zu,\"page_size\":%zu,\"file_offset\":%zu,\"fd\":%zu}",
        (size_t)region->address, region->bytes, offset, region->file.pageBytes, (size_t)region->fileOffset, i + 1);
    offset += region->bytes;
  }
  add(text, "],\"fds\":[\"uffd\"");
  for (size_t i = 0; i < count; i++) add(text, ",\"memfd\"");
  // From `ready` on a guest may have run on it: only an agent that goes on with this very migration may take it.
  add(text, "],\"registered\":[\"missing\"],\"content\":\"%s\"", live ? "live" : "discard");
  if (live) addGivenBack(text, regions, count);
  add(text, "}\n");
}

bool sendHandshake(int socket, const struct Settings *settings, const struct Ram *ram) {
  static struct Text text; // one thread sends
  const struct Region *regions[MAX_RAM];
  sortRegions(ram, regions);
  const size_t count = atomic_load(&ram->count);
  writeText(&text, settings, regions, count, atomic_load(&ram->phase) == PHASE_LIVE);

  int fds[1 + MAX_RAM] = {ram->uffd};
  for (size_t i = 0; i < count; i++) fds[i + 1] = regions[i]->fd;
  const size_t fdBytes = (count + 1) * sizeof(int);
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {0};
  struct iovec part = {text.bytes, text.length};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(fdBytes)};
  struct cmsghdr *const head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(fdBytes);
  memcpy(CMSG_DATA(head), fds, fdBytes);
  // The socket blocks, so a part only means that the agent has closed it.
  return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)text.length;
}
