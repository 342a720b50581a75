/* Memory that somebody else is to fill: a memfd, its mapping, and the userfaultfd that it is registered on. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct memory {
  uint8_t *at;
  size_t pages;
  int file;
  int uffd; /* -1: not registered */
};

/* @param mode of UFFDIO_REGISTER (MISSING, MINOR); 0: nothing is registered, and no userfaultfd opened */
struct memory memory_make(size_t pages, uint64_t mode);
/*
 * Has the machine find as many pages as the memory will need, and gives them back at once: the memory is as empty as before. A virtual machine's host may bring
 * a page only when it is first touched (6 s a GiB were seen, against 0.5), and whoever fills memory would be measured with that.
 */
void memory_warm(const struct memory *memory, size_t pages);
void memory_free(struct memory *memory);

/*
 * Installs with UFFDIO_COPY and wakes whoever waits. A page that is there already (somebody else was faster) is only woken.
 * Any other refusal ends the program: nothing here may be half filled in silence.
 */
void memory_copy(const struct memory *memory, size_t first_page, const void *bytes, size_t page_count);
