/*
 * What a source's memory holds: a law from a page's number to its bytes, so that whoever has the pages can tell each wrong one, with nothing to compare
 * them with. The page server makes the memory by it, `fill` looks at all of it afterwards.
 *
 *   random   pseudo-random: nothing on the way can compress it or take it for zeros
 *   text     lines of logs, of JSON and of prose, 256 KiB of a kind: words of a fixed vocabulary by Zipf's law, with numbers, times and ids in between
 *   zeros    four pages in five are zero and really there, as memory that a guest freed after clearing it; the rest is random. They lie in runs of 1 to
 *            256 pages between runs of 1 to 44 with content, all lengths of an octave equally likely
 *   holes    the same, with holes where the zero pages are, as memory that the guest has not used since it booted
 */
#pragma once
#include <stdint.h>

enum content { CONTENT_RANDOM, CONTENT_TEXT, CONTENT_ZEROS, CONTENT_HOLES };

enum content parse_content(const char *text);

/* Makes pages [0, page_count) of a mapping that is empty, on all CPUs. */
void content_fill(enum content content, uint8_t *at, uint64_t page_count);

/*
 * Looks at every byte of a file of `page_count` pages, which are those from `first_page` on of the law, on all CPUs and without a fault. Ends the program at
 * the first wrong page.
 */
void content_verify(enum content content, int file, uint64_t first_page, uint64_t page_count);

/* One page; 0: it is zero, and nothing was written. The pages of a run are cheaper together (content_fill). */
int content_page(enum content content, uint64_t page, uint8_t *out);
