/*
 * What there is to gain on a content: how far LZ4 shrinks it, in pieces of 256 KiB as the product's bulk lane takes them, and how many of its pages are zero.
 *
 *   describe CONTENT PAGES
 *
 * Prints one JSON line. The only program here that needs liblz4, which the product's addon needs as well.
 */
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "content.h"
#include "text.h"

int main(int argc, char **argv) {
  if (argc != 3) fail_because("usage", "describe CONTENT PAGES");
  const enum content content = parse_content(argv[1]);
  const unsigned long pages = parse_count("PAGES", argv[2], 1, 1ul << 22);
  if (content == CONTENT_TEXT) text_prepare();
  const int room = LZ4_compressBound(PIECE);
  uint8_t *piece = malloc(PIECE);
  char *packed = malloc((size_t)room);
  if (piece == NULL || packed == NULL) fail("malloc");

  unsigned long zero_pages = 0;
  size_t packed_bytes = 0, length = 0;
  for (unsigned long page = 0; page < pages; page++) {
    /* Zero pages go as a few bytes wherever anybody looks for them, so LZ4 is judged by the others alone. */
    if (!content_page(content, page, piece + length)) zero_pages++;
    else length += PAGE;
    if (length < PIECE && page + 1 < pages) continue;
    packed_bytes += (size_t)LZ4_compress_default((const char *)piece, packed, (int)length, room);
    length = 0;
  }
  const double raw_bytes = (double)(pages - zero_pages) * PAGE;
  dprintf(STDOUT_FILENO, "{\"event\":\"described\",\"pages\":%lu,\"zeroPages\":%lu,\"lz4Ratio\":%.3f}\n", pages, zero_pages,
          packed_bytes > 0 ? raw_bytes / (double)packed_bytes : 1.0);
  return 0;
}
