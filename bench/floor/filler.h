/* The two that can fill memory for `destination`. */
#pragma once
#include "memory.h"

/* The floor. Serves the faults of `memory` from the page server at 127.0.0.1:port with one thread, for ever. Ready on return. */
void floor_serve(const struct memory *memory, int port);
/* CPU time of the thread that serves faults so far. What the page server takes is the page server's. */
int64_t floor_serve_cpu_ns(void);

/*
 * The floor's own bulk beside its faults: a second connection and a thread that writes the lower half of memory, piece after piece, as fast as they come. It
 * begins anew when it is through, each piece then punched out before it is written, so that it lasts as long as the walk and a page costs what it did.
 */
void floor_bulk_start(const struct memory *memory, int port);
/* That it has written so far, and the CPU time of its thread. */
uint64_t floor_bulk_bytes(void);
int64_t floor_bulk_cpu_ns(void);

/*
 * The product. Hands `memory` to a destination agent in the pagewake/1 handshake and returns once the agent has said `ready`. If it says `failed`, or
 * leaves before `done`, the program ends.
 */
void agent_serve(const struct memory *memory, const char *socket_path, const char *vm);
/* Returns once the agent has said `done`. */
void agent_await_done(void);
/* Whether it has, at once. */
int agent_is_done(void);
