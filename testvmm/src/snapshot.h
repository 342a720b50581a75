// The snapshot role: a VM's memory as a sparse file and its state beside it, so that a migration can start from files.
#pragma once
#include "options.h"

namespace testvmm {

/** Runs the guest for `passes` passes, then writes both files and prints a `snapshot` event. */
void takeSnapshot(const Options &options);

} // namespace testvmm
