// The whole user space of the guest in the tests with QEMU: one static program that is init, fills memory, verifies and
// rewrites it for ever, and says on the serial console how it is. One JSON object a line; what is no JSON is the kernel's.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8, MAX_WORKERS = 32, HEARTBEAT_MS = 100 };

enum pattern { PATTERN_RANDOM, PATTERN_TEXT };

/** The kernel's command line, `pw.NAME=VALUE`; see guest/README.md for each. */
struct options {
  uint64_t mem_mib, zeros_mib, disk_buffer_mib;
  uint64_t workers, pages_per_s, blocks_per_s;
  enum pattern pattern;
  bool disk;
  uint32_t address, netmask; // network byte order; address 0: no network
};

struct worker_counters {
  _Atomic uint64_t verified; // pages read and found right, since the start
  _Atomic uint64_t round;    // the last full look through its pages
} __attribute__((aligned(64)));

/** What all processes of the guest see. The only memory that the heartbeat touches besides its stack. */
struct shared {
  _Atomic uint64_t wrong;
  _Atomic uint64_t disk_blocks; // written, read back and found right
  _Atomic uint64_t echoed_bytes;
  _Atomic uint64_t round; // raised by `verify`: each worker then looks through all of its pages
  _Atomic uint64_t round_pages, round_wrong;
  struct worker_counters workers[MAX_WORKERS];
};

extern struct options options;
extern struct shared *shared;

// console.c
/** One line, in one write: lines of several processes do not mix. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** Says why and ends the guest: a guest that is half there would be taken for one that works. */
void die(const char *what) __attribute__((noreturn));
void say_wrong(const char *where, uint64_t number, uint64_t word, uint64_t expected, uint64_t found);
void heartbeats(void) __attribute__((noreturn));
void commands(void) __attribute__((noreturn));

// setup.c
void mount_all(void);
void read_options(void);
void load_modules(void);
void configure_network(void);

// memory.c
void *reserve(uint64_t bytes);
/** Fills, says so, and goes on with a thread a worker. */
void memory_workload(void) __attribute__((noreturn));

// devices.c
void disk_workload(void) __attribute__((noreturn));
void echo_server(void) __attribute__((noreturn));

uint64_t now_ms(void);
/** Sleeps where the work done so far is ahead of `per_s`; 0: never. */
void pace(uint64_t per_s, uint64_t started_ms, uint64_t done);
