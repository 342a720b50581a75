/* The two that can fill memory for `destination`. */
#pragma once
#include "memory.h"

/* The floor. Serves the faults of `memory` from the page server at 127.0.0.1:port with one thread, for ever. Ready on return. */
void floor_serve(const struct memory *memory, int port);
/* The floor. Fetches all of it by one request and installs it by write() of 256 KiB pieces. */
void floor_fill(const struct memory *memory, int port);

/*
 * The product. Hands `memory` to a destination agent in the pagewake/1 handshake and returns once the agent has said `ready`. If it says `failed`, or
 * leaves before `done`, the program ends.
 */
void agent_serve(const struct memory *memory, const char *socket_path, const char *vm);
/* Returns once the agent has said `done`. */
void agent_await_done(void);
/* Whether it has, at once. */
int agent_is_done(void);
