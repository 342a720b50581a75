#include "message.h"

#include <string.h>

struct Cursor {
  const char *at;
  const char *end;
};

static void skipSpace(struct Cursor *c) {
  while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r' || *c->at == '\n')) c->at++;
}

static bool take(struct Cursor *c, char wanted) {
  skipSpace(c);
  if (c->at >= c->end || *c->at != wanted) return false;
  c->at++;
  return true;
}

static int hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/** What a person reads at the end: what is not ASCII becomes a question mark. False where no four digits follow. */
static bool takeUnicode(struct Cursor *c, char *out) {
  int code = 0;
  for (int i = 0; i < 4; i++) {
    const int digit = c->at < c->end ? hexDigit(*c->at++) : -1;
    if (digit < 0) return false;
    code = code * 16 + digit;
  }
  *out = code < 0x80 ? (char)code : '?';
  return true;
}

/** The text goes into `into`, as much as has room; `into` may be null. */
static bool takeString(struct Cursor *c, char *into, size_t room) {
  if (!take(c, '"')) return false;
  size_t length = 0;
  while (c->at < c->end) {
    char byte = *c->at++;
    if (byte == '"') {
      if (into != NULL) into[length] = '\0';
      return true;
    }
    if (byte == '\\') {
      if (c->at >= c->end) return false;
      byte = *c->at++;
      if (byte == 'u') {
        if (!takeUnicode(c, &byte)) return false;
      } else if (strchr("nrtbf", byte) != NULL) {
        byte = ' ';
      }
    }
    if (into != NULL && length + 1 < room) into[length++] = byte;
  }
  return false;
}

/** Any value: a string, or everything up to the comma or bracket that ends it. */
static bool skipValue(struct Cursor *c) {
  unsigned depth = 0;
  do {
    skipSpace(c);
    if (c->at >= c->end) return false;
    if (*c->at == '"') {
      if (!takeString(c, NULL, 0)) return false;
    } else if (*c->at == '{' || *c->at == '[') {
      depth++;
      c->at++;
    } else if (*c->at == '}' || *c->at == ']') {
      if (depth == 0) return false;
      depth--;
      c->at++;
    } else {
      const char *const start = c->at;
      while (c->at < c->end && strchr(depth > 0 ? ",:{}[]\"" : ",}] \t", *c->at) == NULL) c->at++;
      if (depth > 0 && c->at == start) c->at++; // a comma or colon inside
      if (depth == 0 && c->at == start) return false;
    }
  } while (depth > 0);
  return true;
}

static bool takeTrue(struct Cursor *c, bool *value) {
  static const char word[] = "true";
  skipSpace(c);
  *value = (size_t)(c->end - c->at) >= sizeof word - 1 && memcmp(c->at, word, sizeof word - 1) == 0;
  return skipValue(c);
}

static enum AnswerType typeOf(const char *name) {
  if (strcmp(name, "held") == 0) return ANSWER_HELD;
  if (strcmp(name, "ready") == 0) return ANSWER_READY;
  if (strcmp(name, "done") == 0) return ANSWER_DONE;
  if (strcmp(name, "failed") == 0) return ANSWER_FAILED;
  return ANSWER_OTHER;
}

bool readAnswer(const char *line, size_t length, struct Answer *answer) {
  struct Cursor c = {line, line + length};
  *answer = (struct Answer){.type = ANSWER_OTHER};
  bool typed = false;
  if (!take(&c, '{')) return false;
  if (take(&c, '}')) return false;
  do {
    char key[16];
    if (!takeString(&c, key, sizeof key) || !take(&c, ':')) return false;
    bool ok;
    if (strcmp(key, "type") == 0) {
      char name[16];
      ok = typed = takeString(&c, name, sizeof name);
      if (ok) answer->type = typeOf(name);
    } else if (strcmp(key, "reason") == 0) {
      ok = takeString(&c, answer->reason, sizeof answer->reason);
    } else if (strcmp(key, "message") == 0) {
      ok = takeString(&c, answer->message, sizeof answer->message);
    } else if (strcmp(key, "again") == 0) {
      ok = takeTrue(&c, &answer->again);
    } else {
      ok = skipValue(&c);
    }
    if (!ok) return false;
  } while (take(&c, ','));
  if (!take(&c, '}')) return false;
  skipSpace(&c);
  return typed && c.at == c.end;
}
