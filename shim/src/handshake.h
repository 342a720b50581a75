// The first words to an agent, and the descriptors (docs/protocol.md, handshake pagewake/1).
#pragma once

#include <stdbool.h>

#include "ram.h"

/** @returns false where the agent is gone */
bool sendHandshake(int socket, const struct Settings *settings, const struct Ram *ram);
