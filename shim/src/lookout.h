// Says so where QEMU maps nothing that PAGEWAKE_RAM names: nobody else would, as no agent hears of such a QEMU.
#pragma once

#include <stddef.h>

#include "ram.h"

/** Once a process, before it has threads. Does nothing where this is no QEMU that a guest is to come to. Both must live as long as the process. */
void startLookout(const struct Settings *settings, const struct Ram *ram);

/** A file that is mapped as guest RAM is, and that PAGEWAKE_RAM does not name. */
void noteUnnamed(int fd, size_t bytes);
