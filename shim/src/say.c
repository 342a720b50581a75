#include "say.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 6144
static const char prefix[] = "pagewake-shim: ";

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char last[LINE_BYTES];

/** @returns length, newline included; a line that is too long is cut */
static size_t format(char line[LINE_BYTES], const char *words, va_list arguments) {
  const size_t head = sizeof prefix - 1;
  memcpy(line, prefix, head);
  const int wanted = vsnprintf(line + head, LINE_BYTES - head - 1, words, arguments);
  size_t length = strlen(line);
  if (wanted < 0) length = head;
  // A path or an agent's message may have line ends of its own.
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)line[i] < ' ') line[i] = ' ';
  line[length++] = '\n';
  line[length] = '\0';
  return length;
}

/** Nothing can be done about a standard error that takes no more. */
static void put(const char *line, size_t length) {
  while (length > 0) {
    const ssize_t n = write(STDERR_FILENO, line, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    line += n;
    length -= (size_t)n;
  }
}

void say(const char *words, ...) {
  const int error = errno;
  static char line[LINE_BYTES];
  va_list arguments;
  va_start(arguments, words);
  pthread_mutex_lock(&lock);
  const size_t length = format(line, words, arguments);
  if (strcmp(line, last) != 0) put(line, length);
  memcpy(last, line, length + 1);
  pthread_mutex_unlock(&lock);
  va_end(arguments);
  errno = error;
}

void refuse(const char *words, ...) {
  char line[LINE_BYTES]; // not under the lock: whoever holds it may never let go in a child of fork
  va_list arguments;
  va_start(arguments, words);
  put(line, format(line, words, arguments));
  va_end(arguments);
  _exit(1);
}
