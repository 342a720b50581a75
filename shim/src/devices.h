// Devices that post-copy cannot serve, told by QEMU's command line.
#pragma once

/** Ends the process, saying why, where this one has such a device. */
void checkDevices(void);
