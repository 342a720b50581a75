// What the guest has given back last. The kernel tells an agent of it once; one that dies with it read and not noted takes it along, so the next one
// is told of it in the handshake.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Calls that are under way at one time. One more waits for its turn, as it would for the agent. */
#define GIVING_BACK_AT_ONCE 64
/** An agent reads of more than one range at once. More than it needs do no harm: what a guest has touched since is there, and stays. */
#define GIVEN_BACK_KEPT 8
#define MAX_GIVEN_BACK (GIVING_BACK_AT_ONCE * GIVEN_BACK_KEPT)

struct Range {
  uintptr_t address;
  size_t bytes;
};

/** Before the kernel is asked, as an agent may have read of it before the call returns. @returns what `endGivingBack` wants */
size_t beginGivingBack(struct Range range);
/** @param gone false where the kernel has refused */
void endGivingBack(size_t place, bool gone);

/** Those under way included. @returns how many */
size_t lastGivenBack(struct Range ranges[MAX_GIVEN_BACK]);
