/* The touching side, the same code for product and floor: what a vCPU would see. */
#pragma once
#include "memory.h"

enum { MAX_THREADS = 64 };

struct walk {
  char name[32];
  unsigned long ms;      /* so long, and 100 touches at least */
  unsigned long threads; /* each has one touch outstanding */
  unsigned long gap_us;  /* that a thread computes between two touches */
  /* Where bulk runs beside the walk: whether it has come to its end, and the walk with it. NULL: none does. */
  int (*bulk_is_over)(void);
};

/* Stalls are from touch to resumed; percentiles by nearest rank: a stall that really was, never one between two. */
struct walked {
  unsigned long touches; /* in all, over all threads */
  unsigned long passed;  /* pages of the order that were there already, and were not touched */
  double seconds;
  double p50_us, p99_us, p999_us, longest_us;
};

/*
 * Touches pages that are not there, each once, spread over the upper half of memory (whose page count is a power of two): no two neighbours
 * follow each other, so that no read-ahead can help, and while bulk runs each is far from where the last ones drew it.
 * `next` is the place in that order and is moved on.
 */
struct walked walk_run(const struct memory *memory, const struct walk *walk, unsigned long *next);

/* Ends the program where the first word of a page is not what the content law says. */
void check_page(unsigned long page, uint64_t found);

/* Looks at the first word of every page through the file, which never faults. Ends the program at the first wrong page. */
void verify_file(const struct memory *memory);
