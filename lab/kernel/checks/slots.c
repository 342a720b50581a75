// Memory slots with a userfault bitmap: what they refuse, KVM's own accesses, and slots of memory that is no guest_memfd.
#include "checks.h"

void check_emulator(void) {
  section("KVM's own accesses");
  const int result = guest_outs(RAM_GPA + (u64)EMULATED_PAGE * PAGE_BYTES);
  settle();
  const uint8_t said = *((uint8_t *)run + run->io.data_offset);
  check(result == 0 && run->exit_reason == KVM_EXIT_IO, "outsb from an absent page is no userfault exit");
  check(counts.missing == 1 && counts.by_vcpu == 1, "but an event, by the vCPU's thread");
  check(said == (word_of(EMULATED_PAGE, 0) & 0xff), "and reads the right byte");
  if (ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_HLT) die("hlt");
}

static void check_pre_fault(void) {
  struct pre_fault request = {.gpa = RAM_GPA + (u64)PRE_FAULT_PAGE * PAGE_BYTES, .bytes = PAGE_BYTES};
  const int set = shadow_paging ? EOPNOTSUPP : EFAULT, clear = shadow_paging ? EOPNOTSUPP : 0;
  expect(ioctl(vcpu, PRE_FAULT, &request), 0, set, "KVM_PRE_FAULT_MEMORY of a page whose bit is set fails");
  fill_gmem(request.gpa);
  expect(ioctl(vcpu, PRE_FAULT, &request), 0, clear, "and works once it is filled and its bit clear");
}

void check_slots(void) {
  section("memory slots");
  check(ioctl(vm, KVM_CHECK_EXTENSION, CAP_USERFAULT) == 1, "KVM_CAP_USERFAULT");
  check_pre_fault();
  const u64 gpa = PLAIN_GPA + (256 << 20);
  struct slot slot = {.slot = 9, .flags = SLOT_USERFAULT, .gpa = gpa, .bytes = BLOCK_BYTES};
  slot.address = (u64)map(-1, BLOCK_BYTES);
  slot.userfault_bitmap = (u64)bitmap;
  expect(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), 0, EINVAL, "KVM_SET_USER_MEMORY_REGION knows no bitmap: EINVAL");
  slot.userfault_bitmap = 0xffff800000000000ull;
  expect(ioctl(vm, SET_SLOT, &slot), 0, EINVAL, "a bitmap in the kernel: EINVAL");
  char *gone = map(-1, PAGE_BYTES);
  munmap(gone, PAGE_BYTES);
  slot.userfault_bitmap = (u64)gone;
  expect(ioctl(vm, SET_SLOT, &slot), 0, 0, "a bitmap that is not mapped, which may still come");
  const int result = guest_touch_once(gpa), error = errno;
  const struct memory_fault *fault = (const void *)&run->hw;
  const bool memory_fault = result < 0 && error == EFAULT && run->exit_reason == EXIT_MEMORY_FAULT;
  check(memory_fault && fault->flags == 0 && fault->gpa == gpa, "a fault then is an exit without the flag");
  slot.flags = 0;
  expect(ioctl(vm, SET_SLOT, &slot), 0, EINVAL, "the flag cannot be taken off");
  slot.flags = SLOT_USERFAULT;
  slot.userfault_bitmap = (u64)bitmap;
  expect(ioctl(vm, SET_SLOT, &slot), 0, EINVAL, "another bitmap cannot be put on");
  slot.flags = SLOT_USERFAULT | KVM_MEM_LOG_DIRTY_PAGES;
  slot.userfault_bitmap = (u64)gone;
  expect(ioctl(vm, SET_SLOT, &slot), 0, 0, "dirty logging can be turned on");
  slot.bytes = 0;
  expect(ioctl(vm, SET_SLOT, &slot), 0, 0, "the slot can be deleted");
}

enum { OTHER_PAGES = 1024, OTHER_TOUCHED = 512, LARGE_BYTES = 2 << 20 };
static const u64 OTHER_BYTES = (u64)OTHER_PAGES * PAGE_BYTES;
static char *other;
static uint8_t *other_bits;
/** -1: filled beforehand. */
static int other_file;

static void fill_other(u64 gpa) {
  static char content[PAGE_BYTES];
  const u64 page = (gpa - PLAIN_GPA) / PAGE_BYTES;
  pattern(page, content);
  const bool write = other_file >= 0;
  if (write && pwrite(other_file, content, PAGE_BYTES, (off_t)(page * PAGE_BYTES)) != PAGE_BYTES) die("pwrite to shmem");
  __atomic_fetch_and(&other_bits[page / 8], (uint8_t)~(1u << page % 8), __ATOMIC_RELEASE);
}

static bool other_is_right(void) {
  for (u64 page = 0; page < OTHER_TOUCHED; page++) {
    const u64 *words = (const u64 *)(other + page * PAGE_BYTES);
    const bool right = words[1] == ~word_of(page, 0) && words[PAGE_WORDS - 1] == word_of(page, PAGE_WORDS - 1);
    if (guest_read((int)page) != word_of(page, 0) || !right) return false;
  }
  return true;
}

/** Full of the pattern, and by large pages where the kernel has some. */
static char *large_pages(void) {
  char *at = mmap(NULL, OTHER_BYTES + LARGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) die("mmap");
  at = (char *)(((u64)at + LARGE_BYTES - 1) & ~(u64)(LARGE_BYTES - 1));
  madvise(at, OTHER_BYTES, MADV_HUGEPAGE);
  for (u64 page = 0; page < OTHER_PAGES; page++) pattern(page, at + page * PAGE_BYTES);
  return at;
}

static void rearm_other(const u64 *addresses) {
  memset(other_bits, 0xff, OTHER_PAGES / 8);
  // Takes the pages from the guest by the MMU notifier; their contents stay.
  if (mprotect(other, OTHER_BYTES, PROT_NONE) < 0 || mprotect(other, OTHER_BYTES, PROT_READ | PROT_WRITE) < 0) die("mprotect");
  other_file = -1;
  check(guest_touches(addresses, OTHER_TOUCHED, fill_other) == OTHER_TOUCHED, "set bits and mprotect(): each page exits once more");
}

static void check_slot_on(const char *name, int file, uint32_t flags) {
  static u64 addresses[OTHER_TOUCHED];
  section(name);
  other_file = file;
  if (file >= 0 && ftruncate(file, (off_t)OTHER_BYTES) < 0) die("ftruncate");
  other = file >= 0 ? map(file, OTHER_BYTES) : large_pages();
  other_bits = (uint8_t *)map(-1, OTHER_PAGES / 8);
  memset(other_bits, 0xff, OTHER_PAGES / 8);
  struct slot slot = {.slot = 3, .flags = flags, .gpa = PLAIN_GPA, .bytes = OTHER_BYTES, .address = (u64)other};
  slot.userfault_bitmap = (u64)other_bits;
  add_slot(&slot);
  for (u64 page = 0; page < OTHER_TOUCHED; page++) addresses[page] = PLAIN_GPA + page * PAGE_BYTES;
  const u64 large = vm_count("pages_2m");
  const int exits = guest_touches(addresses, OTHER_TOUCHED, fill_other);
  const bool is_large = vm_count("pages_2m") > large, userfault = flags & SLOT_USERFAULT;
  check(exits == (userfault ? OTHER_TOUCHED : 0), userfault ? "one exit a page" : "no exit");
  check(other_is_right(), "the guest read the right words, and wrote");
  if (file < 0) check(is_large != userfault, userfault ? "mapped by small pages only" : "mapped by large pages");
  if (userfault) rearm_other(addresses);
  slot.bytes = 0;
  add_slot(&slot);
  munmap(other, OTHER_BYTES);
}

void check_other_memory(void) {
  const int file = memfd_create("shmem", 0);
  check_slot_on("a memfd with KVM_MEM_USERFAULT", file, SLOT_USERFAULT);
  close(file);
  check_slot_on("large pages without it", -1, 0);
  check_slot_on("large pages with it", -1, SLOT_USERFAULT);
}
