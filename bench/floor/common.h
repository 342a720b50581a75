/* What all programs of the floor share: errors, clock, whole reads and writes, and the content of a page. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { PAGE = 4096, PIECE = 256 * 1024 };

/* Ends the program: what failed, and why by errno where that is not 0. */
_Noreturn void fail(const char *what);
/* The same for what is wrong by itself and has no errno. */
_Noreturn void fail_because(const char *what, const char *why);

int64_t now_ns(void);

/* A whole number from `least` to `most`, or the program ends with a text that names the argument. */
unsigned long parse_count(const char *what, const char *text, unsigned long least, unsigned long most);

/* Ends with its parent: a benchmark that is killed leaves nothing behind. */
void end_with_parent(void);

/* False: the other side closed before the first byte. Closing in the middle ends the program. */
int read_exactly(int fd, void *bytes, size_t length);
void write_exactly(int fd, const void *bytes, size_t length);

/*
 * The content law: the first word of page N is page_word(N), never 0, and the rest is pseudo-random, so that nothing on the way
 * can compress it or take it for zeros. Whoever touches a page checks the word: a wrong page ends the benchmark.
 */
uint64_t page_word(uint64_t page);
void fill_random(uint8_t *at, uint64_t first_page, uint64_t page_count);

/*
 * The floor's protocol: a request of 8 bytes in the machine's own order (both ends are one machine), answered by the bytes of the run and
 * nothing else. Answers come in the order of the requests.
 */
struct request {
  uint32_t first_page;
  uint32_t page_count;
};
