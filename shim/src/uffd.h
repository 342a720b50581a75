// The userfaultfd: one for all of the guest's RAM.
#pragma once

#include <stddef.h>
#include <stdint.h>

/** Sees the kernel's own faults too (stage-2 faults, O_DIRECT). Ends the process, saying what is missing, where there is none to be had. */
int openUffd(void);

/** From its return on a touch of a page that is not there waits. Ends the process where that cannot be. */
void registerMissing(int uffd, uintptr_t address, size_t bytes, const char *name);

/** Whoever waits in the range looks again, and faults again where the page is still missing. */
void wakeAll(int uffd, uintptr_t address, size_t bytes);
