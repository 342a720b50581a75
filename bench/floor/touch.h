/* The touching side, the same code for product and floor: what a vCPU would see. */
#pragma once
#include "memory.h"

enum { MAX_THREADS = 64 };

struct walk {
  char name[32];
  unsigned long touches; /* in all, over all threads */
  unsigned long threads; /* each has one touch outstanding */
  unsigned long gap_us;  /* that a thread computes between two touches */
};

/*
 * Touches pages that nobody has touched, each once, spread over the upper half of memory (whose page count is a power of two): no two neighbours
 * follow each other, so that no read-ahead can help, and what a prefetch did before it was paused is in the lower half.
 * `next` is the place in that order and is moved on. Prints one JSON line: stalls from touch to resumed, and the rate.
 */
void walk_run(const struct memory *memory, const struct walk *walk, unsigned long *next);

/* Ends the program where the first word of a page is not what the content law says. */
void check_page(unsigned long page, uint64_t found);

/* Looks at the first word of every page through the file, which never faults. Ends the program at the first wrong page. */
void verify_file(const struct memory *memory);
