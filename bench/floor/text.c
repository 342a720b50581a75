#include "text.h"

#include <stdio.h>
#include <string.h>

#include "common.h"

enum {
  WORDS = 4096,
  WORD_ROOM = 16,     /* one copy of fixed length a word is a single instruction */
  DRAWS = 1 << 16,    /* places of the table that words are drawn from */
  LINE_ROOM = 512,    /* more than the longest line */
  PAGES_OF_A_KIND = 64,
};

struct word {
  uint8_t length;
  char text[WORD_ROOM];
};

static struct word words[WORDS];
/* Word numbers, as often as Zipf's law says: the n-th word 1/n as often as the first. */
static uint16_t draws[DRAWS];

/* The most frequent words of any text are short ones that everybody knows. */
static const char *const COMMON[] = {
    "the",  "of",    "and",  "to",    "in",     "a",     "is",     "for",   "that",   "on",    "with",   "was",  "as",    "by",    "not",   "at",
    "from", "this",  "be",   "are",   "or",     "which", "it",     "has",   "an",     "one",   "all",    "will", "after", "no",    "more",  "when",
    "new",  "error", "time", "value", "server", "user",  "failed", "state", "closed", "start", "client", "size", "path",  "cache", "retry", "queue",
};
static const char *const SYLLABLES[] = {
    "ta", "ren", "mo", "lis", "con", "ver", "de", "tra", "pli", "sen", "or", "ma", "ti", "cal", "dis", "pro", "net", "lo",  "ga", "ber", "un", "ste",
    "pa", "ric", "fo", "el",  "min", "ha",  "su", "gen", "ko",  "ble", "ex", "ar", "vi", "nor", "ing", "tem", "ad",  "qui",
};
static const char *const LEVELS[] = {"INFO ", "INFO ", "INFO ", "DEBUG", "DEBUG", "WARN ", "INFO ", "ERROR"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void make_words(void) {
  for (size_t i = 0; i < WORDS; i++) {
    char *text = words[i].text;
    if (i < COUNT(COMMON)) {
      strcpy(text, COMMON[i]);
    } else {
      /* Rarer words are longer: two to four syllables of at most three letters. */
      const uint64_t seed = page_word(i);
      const unsigned count = 2 + (i > 400) + (i > 1600);
      for (unsigned j = 0; j < count; j++) strcat(text, SYLLABLES[(seed >> (8 * j)) % COUNT(SYLLABLES)]);
    }
    words[i].length = (uint8_t)strlen(text);
  }
}

void text_prepare(void) {
  make_words();
  double whole = 0, sum = 0;
  for (size_t i = 0; i < WORDS; i++) whole += 1.0 / (double)(i + 1);
  size_t place = 0;
  for (size_t i = 0; i < WORDS; i++) {
    sum += 1.0 / (double)(i + 1);
    for (; place < DRAWS && (double)place < sum / whole * DRAWS; place++) draws[place] = (uint16_t)i;
  }
  for (; place < DRAWS; place++) draws[place] = WORDS - 1;
}

/* A page is written in order; `at` may run past its end by a line. */
struct pen {
  uint8_t *at;
  uint64_t random;
};

/* xorshift64* (public domain, George Marsaglia): a few cycles, and its upper bits are good enough for words. */
static uint64_t draw(struct pen *pen) {
  pen->random ^= pen->random >> 12;
  pen->random ^= pen->random << 25;
  pen->random ^= pen->random >> 27;
  return (pen->random * UINT64_C(0x2545f4914f6cdd1d)) >> 16;
}

static void put(struct pen *pen, const char *text, size_t length) {
  memcpy(pen->at, text, length);
  pen->at += length;
}
#define PUT(pen, literal) put(pen, literal, sizeof(literal) - 1)

static void put_word(struct pen *pen) {
  const struct word *word = &words[draws[draw(pen) % DRAWS]];
  memcpy(pen->at, word->text, WORD_ROOM);
  pen->at += word->length;
}

static void put_digits(struct pen *pen, uint64_t value, unsigned count) {
  for (unsigned i = count; i-- > 0; value /= 10) pen->at[i] = (uint8_t)('0' + value % 10);
  pen->at += count;
}

static void put_number(struct pen *pen, unsigned most_digits) { put_digits(pen, draw(pen), 1 + (unsigned)(draw(pen) % most_digits)); }

static void put_words(struct pen *pen, unsigned least, unsigned spread) {
  const unsigned count = least + (unsigned)(draw(pen) % spread);
  for (unsigned i = 0; i < count; i++) {
    if (i > 0) PUT(pen, " ");
    put_word(pen);
  }
}

/* 2026-03-14T09:26:53.589Z INFO  [worker-3] retry of the queue user=48213 took=17ms */
static void put_log_line(struct pen *pen, uint64_t page) {
  PUT(pen, "2026-03-14T");
  put_digits(pen, page / 3600 % 24, 2);
  PUT(pen, ":");
  put_digits(pen, page / 60 % 60, 2);
  PUT(pen, ":");
  put_digits(pen, page % 60, 2);
  PUT(pen, ".");
  put_digits(pen, draw(pen), 3);
  PUT(pen, "Z ");
  put(pen, LEVELS[draw(pen) % COUNT(LEVELS)], 5);
  PUT(pen, " [worker-");
  put_number(pen, 1);
  PUT(pen, "] ");
  put_words(pen, 3, 8);
  PUT(pen, " user=");
  put_digits(pen, draw(pen), 5);
  PUT(pen, " took=");
  put_number(pen, 4);
  PUT(pen, "ms\n");
}

/* {"id":83721,"name":"server queue","tags":["cache","the"],"size":1234,"ok":true} */
static void put_json_line(struct pen *pen) {
  PUT(pen, "{\"id\":");
  put_digits(pen, draw(pen), 7);
  PUT(pen, ",\"name\":\"");
  put_words(pen, 1, 4);
  PUT(pen, "\",\"tags\":[\"");
  put_word(pen);
  PUT(pen, "\",\"");
  put_word(pen);
  PUT(pen, "\"],\"size\":");
  put_number(pen, 6);
  if (draw(pen) % 4 == 0) PUT(pen, ",\"ok\":false}\n");
  else PUT(pen, ",\"ok\":true}\n");
}

static void put_sentence(struct pen *pen) {
  put_words(pen, 4, 16);
  switch (draw(pen) % 8) {
    case 0: PUT(pen, ", "); break;
    case 1: PUT(pen, ".\n\n"); break;
    default: PUT(pen, ". ");
  }
}

void text_page(uint64_t page, uint8_t *out) {
  uint8_t room[PAGE + LINE_ROOM];
  struct pen pen = {.at = room, .random = page_word(page)};
  while (pen.at < room + PAGE) switch (page / PAGES_OF_A_KIND % 3) {
      case 0: put_log_line(&pen, page); break;
      case 1: put_json_line(&pen); break;
      default: put_sentence(&pen);
    }
  memcpy(out, room, PAGE);
}
