/* Text-like memory, page by page. */
#pragma once
#include <stdint.h>

/* Before the first text_page, by one thread. */
void text_prepare(void);
void text_page(uint64_t page, uint8_t *out);
