// Checks of the lab's kernel, by its system calls: userfaultfd on guest_memfd, write() to it, KVM_MEM_USERFAULT. Numbers and
// structures that the machine's headers do not know yet are written down here.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

typedef uint64_t u64;

enum {
  PAGE_BYTES = 4096,
  PAGE_WORDS = PAGE_BYTES / 8,
  BLOCK_BYTES = 1 << 20,
};

// guest_memfd: flags of KVM_CREATE_GUEST_MEMFD.
enum { GMEM_MMAP = 1, GMEM_INIT_SHARED = 2, GMEM_UNUSED = 4, GMEM_WRITE = 8, GMEM_ALL = 11 };
// Memory slots, and exits.
enum { SLOT_GMEM = 4, SLOT_USERFAULT = 8, EXIT_MEMORY_FAULT = 39, FAULT_IS_USERFAULT = 16 };
enum { CAP_GUEST_MEMFD_FLAGS = 244, CAP_USERFAULT = 252 };

struct slot {
  uint32_t slot, flags;
  u64 gpa, bytes, address, gmem_offset;
  uint32_t gmem_fd, pad1;
  u64 userfault_bitmap, pad2[13];
};
struct create_gmem {
  u64 bytes, flags, reserved[6];
};
struct memory_fault {
  u64 flags, gpa, bytes;
};
struct pre_fault {
  u64 gpa, bytes, flags, pad[5];
};
#define SET_SLOT _IOW(KVMIO, 0x49, struct slot)
#define CREATE_GMEM _IOWR(KVMIO, 0xd4, struct create_gmem)
#define PRE_FAULT _IOWR(KVMIO, 0xd5, struct pre_fault)
#define GET_STATS _IO(KVMIO, 0xce)
_Static_assert(sizeof(struct slot) == 160, "the kernel's own layout");

// The machine under test: guest_memfd at RAM_GPA with bitmap and uffd; a place for other slots at PLAIN_GPA.
#define RAM_GPA (1ull << 30)
#define RAM_BYTES (64ull << 20)
#define PLAIN_GPA (2ull << 30)
// Which pages belong to which check. A page is used by one of them only.
enum {
  CLASS_PAGES = 2048,  // classes, and rearming
  ERROR_PAGE = 3000,   // errors of write() and userfaultfd
  EMULATED_PAGE = 3500,
  RACE_PAGE = 4096,
  RACE_PAGES = 512,
  STRESS_PAGE = 6000,
  STRESS_PAGES = 32,
  PRE_FAULT_PAGE = 7000,
  ABSENT_PAGE = 7100,
};

extern int kvm, vm, vcpu, gmem, uffd;
extern struct kvm_run *run;
extern char *ram;
extern uint8_t *bitmap;
extern pid_t vcpu_thread;
/** KVM without nested paging cannot do KVM_PRE_FAULT_MEMORY. */
extern bool shadow_paging;

// What the resolvers counted. Set to zero by each check; read after settle().
struct counts {
  int exits, written, write_eexist;
  int missing, minor, by_vcpu;
  int copied, copy_eexist, zeroed, written_and_woken, continued, continue_eexist, continue_gone;
};
extern struct counts counts;
extern int wrong_touches;
/** Resolvers take their time, each a different one: makes races likely. */
extern bool jitter;
/** Held over "fill and clear the bit" and over "set the bit and punch": neither may be seen half done. */
extern pthread_mutex_t fill_lock;

// report.c
double now_s(void);
void section(const char *name);
void check(bool holds, const char *name);
/** @param error 0: `result` has to be `wanted`; else the call has to fail with it. Reads errno. */
void expect(long result, long wanted, int error, const char *name);
__attribute__((noreturn)) void die(const char *what);
void start_deadline(unsigned seconds);
int report(void);

// machine.c
void make_machine(void);
int create_gmem(u64 bytes, u64 flags);
char *map(int fd, u64 bytes);
void add_slot(struct slot *slot);
/** A counter of the VM's, by name. */
u64 vm_count(const char *name);
/** The guest reads word 0 of each address and writes its complement to word 1. @returns how many exits `fill` resolved. */
int guest_touches(const u64 *addresses, int count, void (*fill)(u64 gpa));
/** Where the guest is, for a log. Waits for a KVM_RUN of another thread. */
void print_vcpu(void);
/** What it read at the n-th address. */
u64 guest_read(int n);
/** One KVM_RUN over one address, whatever comes of it. */
int guest_touch_once(u64 gpa);
/** The guest reads a byte with an instruction that KVM emulates, and hands it to a port. */
int guest_outs(u64 gpa);

// pages.c
u64 word_of(u64 page, u64 word);
void pattern(u64 page, void *to);
void set_bit(u64 page);
void clear_bit(u64 page);
void punch(u64 page);
/** Pages that are zeros by how they are filled. */
bool is_zeros(u64 page);
void touch(u64 page);
void settle(void);
void dawdle(unsigned seed);
int new_uffd(u64 features);
int register_range(int fd, void *at, u64 bytes, u64 mode);
void start_uffd_thread(void);
void fill_gmem(u64 gpa);
bool guest_read_right(const u64 *addresses, int count);

// the checks
void check_classes(void);
void check_rearming(void);
void check_race(void);
void check_stress(double seconds);
void check_write(void);
void check_userfaultfd(void);
void check_flags(void);
void check_emulator(void);
void check_slots(void);
void check_other_memory(void);
void measure_populate(void);
