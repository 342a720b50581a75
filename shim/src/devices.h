// What QEMU's command line tells: devices that post-copy cannot serve, and options.
#pragma once

#include <stdbool.h>

/** Whether it was given, with one dash or two. */
bool hasOption(const char *name);

/** Ends the process, saying why, where this one has such a device. */
void checkDevices(void);
