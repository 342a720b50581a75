/* A guest_memfd of KVM, populated from outside the guest. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum guest_call { GUEST_COPY, GUEST_WRITE, GUEST_WRITE_CONTINUE, GUEST_MEMCPY, GUEST_CALLS };

struct guest_memfd {
  int vm; /* -1: none */
  uint64_t flags;
  /* Why this kernel does not have the call; NULL: it does. */
  const char *lacks[GUEST_CALLS];
};

/* Finds out by making one and trying. */
struct guest_memfd guest_memfd_probe(void);
/* How long it takes to bring an empty one of `size` bytes the bytes of `source`, so many of them a call. */
double guest_memfd_ms(const struct guest_memfd *guest, enum guest_call call, const uint8_t *source, size_t size, size_t piece);
