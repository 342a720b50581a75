// The channel to the agent: a thread of its own that hands the memory over, as often as it takes, until it is whole.
#pragma once

#include "ram.h"

/** Both stay the caller's and must live as long as the process. Regions may still be added. */
void startChannel(const struct Settings *settings, struct Ram *ram);
