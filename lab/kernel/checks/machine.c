// A VM with one vCPU in 64-bit mode at ring 0, and a guest of five instructions.
#include "checks.h"
#include <fcntl.h>
#include <sys/syscall.h>

int kvm, vm, vcpu, gmem, uffd;
struct kvm_run *run;
char *ram;
uint8_t *bitmap;
pid_t vcpu_thread;

static char *boot;
// The guest's first 2 MiB.
enum { CODE = 0x1000, PML4 = 0x2000, PDPT = 0x3000, LOW = 0x4000, HIGH = 0x5000, STACK = 0x8000, LIST = 0x10000, READ = 0x40000 };
enum { BOOT_BYTES = 2 << 20, PORT = 0x10, MAX_ADDRESSES = 4096 };

// For each of rcx addresses at rsi: word 0 goes to rdi, its complement to word 1.
asm(".pushsection .rodata\n"
    "code_touch: mov (%rsi),%rax; mov (%rax),%rbx; mov %rbx,(%rdi); not %rbx; mov %rbx,8(%rax)\n"
    "add $8,%rsi; add $8,%rdi; dec %rcx; jnz code_touch; hlt\n"
    "code_outs: mov $0x10,%edx; cld; outsb; hlt\n"
    "code_end: .popsection");
extern const char code_touch[], code_outs[], code_end[];

int create_gmem(u64 bytes, u64 flags) {
  struct create_gmem create = {.bytes = bytes, .flags = flags};
  return ioctl(vm, CREATE_GMEM, &create);
}

char *map(int fd, u64 bytes) {
  const int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
  char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (at == MAP_FAILED) die("mmap");
  return at;
}

void add_slot(struct slot *slot) {
  if (ioctl(vm, SET_SLOT, slot) < 0) die("KVM_SET_USER_MEMORY_REGION2");
}

static void make_page_tables(void) {
  enum { PRESENT_WRITABLE = 3, PRESENT_WRITABLE_LARGE = 0x83 };
  u64 *pml4 = (u64 *)(boot + PML4), *pdpt = (u64 *)(boot + PDPT);
  pml4[0] = PDPT | PRESENT_WRITABLE;
  pdpt[0] = LOW | PRESENT_WRITABLE;
  pdpt[1] = HIGH | PRESENT_WRITABLE;
  pdpt[2] = (HIGH + PAGE_BYTES) | PRESENT_WRITABLE;
  *(u64 *)(boot + LOW) = PRESENT_WRITABLE_LARGE;
  // From 1 to 3 GiB: the guest_memfd and the other slots.
  for (u64 n = 0; n < 2 * PAGE_WORDS; n++)
    ((u64 *)(boot + HIGH))[n] = (RAM_GPA + (n << 21)) | PRESENT_WRITABLE_LARGE;
}

static void make_vcpu(void) {
  if ((vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) < 0) die("KVM_CREATE_VCPU");
  struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[128];
  } cpuid = {.head.nent = 128};
  if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0 || ioctl(vcpu, KVM_SET_CPUID2, &cpuid) < 0) die("CPUID");
  run = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  struct kvm_sregs sregs;
  if (run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0) die("vCPU");
  const struct kvm_segment code = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  const struct kvm_segment data = {.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
  sregs.cs = code;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cr0 = 0x80050033; // paging, protection, and the usual ones
  sregs.cr3 = PML4;
  sregs.cr4 = 1 << 5;  // PAE
  sregs.efer = 0x500;  // long mode, active
  if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0) die("KVM_SET_SREGS");
  vcpu_thread = (pid_t)syscall(SYS_gettid);
}

void make_machine(void) {
  if ((kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)) < 0 || (vm = ioctl(kvm, KVM_CREATE_VM, 0)) < 0) die("/dev/kvm");
  boot = map(-1, BOOT_BYTES);
  make_page_tables();
  memcpy(boot + CODE, code_touch, (size_t)(code_end - code_touch));
  struct slot low = {.slot = 0, .bytes = BOOT_BYTES, .address = (u64)boot};
  add_slot(&low);
  make_vcpu();

  if ((gmem = create_gmem(RAM_BYTES, GMEM_ALL)) < 0) die("KVM_CREATE_GUEST_MEMFD");
  ram = map(gmem, RAM_BYTES);
  bitmap = (uint8_t *)map(-1, RAM_BYTES / PAGE_BYTES / 8);
  memset(bitmap, 0xff, RAM_BYTES / PAGE_BYTES / 8);
  struct slot high = {.slot = 1, .flags = SLOT_GMEM | SLOT_USERFAULT, .gpa = RAM_GPA, .bytes = RAM_BYTES};
  high.address = (u64)ram;
  high.gmem_fd = (uint32_t)gmem;
  high.userfault_bitmap = (u64)bitmap;
  add_slot(&high);
  uffd = new_uffd(UFFD_FEATURE_THREAD_ID);
  const u64 mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
  if (register_range(uffd, ram, RAM_BYTES, mode) < 0) die("UFFDIO_REGISTER");
}

u64 vm_count(const char *name) {
  struct {
    uint32_t flags, name_bytes, count, id_at, descriptors_at, data_at;
  } head;
  struct {
    uint32_t flags;
    int16_t exponent;
    uint16_t size;
    uint32_t offset, bucket;
    char name[64];
  } descriptor;
  const int fd = ioctl(vm, GET_STATS, 0);
  u64 value = 0;
  if (fd < 0 || pread(fd, &head, sizeof head, 0) != sizeof head || head.name_bytes > sizeof descriptor.name) die("KVM_GET_STATS_FD");
  const size_t bytes = 16 + head.name_bytes;
  for (uint32_t n = 0; n < head.count; n++) {
    if (pread(fd, &descriptor, bytes, (off_t)(head.descriptors_at + n * bytes)) < 0) die("a statistic");
    if (strcmp(descriptor.name, name) != 0) continue;
    if (pread(fd, &value, sizeof value, head.data_at + descriptor.offset) != sizeof value) die(name);
    close(fd);
    return value;
  }
  errno = ENOENT;
  die(name);
}

static void set_registers(const struct kvm_regs *registers) {
  if (ioctl(vcpu, KVM_SET_REGS, registers) < 0) die("KVM_SET_REGS");
}

static void point_at(const u64 *addresses, int count) {
  if (count > MAX_ADDRESSES) die("too many addresses");
  memcpy(boot + LIST, addresses, (size_t)count * 8);
  memset(boot + READ, 0xee, (size_t)count * 8);
  set_registers(&(struct kvm_regs){
      .rip = CODE, .rflags = 2, .rsp = STACK, .rsi = LIST, .rdi = READ, .rcx = (u64)count});
}

void print_vcpu(void) {
  struct kvm_regs registers = {0};
  struct kvm_sregs sregs = {0};
  struct kvm_vcpu_events events = {0};
  // What cannot be had stays zero: this is for a log.
  if (ioctl(vcpu, KVM_GET_REGS, &registers) < 0 || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0) return;
  if (ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events) < 0) return;
  printf("  vCPU: exit %u, rip %#llx rax %#llx rcx %#llx rsi %#llx rdi %#llx cr2 %#llx, exception %u (%u)\n", run->exit_reason,
         registers.rip, registers.rax, registers.rcx, registers.rsi, registers.rdi, sregs.cr2, events.exception.injected,
         events.exception.nr);
}

int guest_touches(const u64 *addresses, int count, void (*fill)(u64 gpa)) {
  point_at(addresses, count);
  for (int exits = 0;;) {
    const int result = ioctl(vcpu, KVM_RUN, 0);
    if (result == 0 && run->exit_reason == KVM_EXIT_HLT) return exits;
    if (result < 0 && errno == EINTR) continue;
    const struct memory_fault *fault = (const void *)&run->hw;
    const bool memory_fault = result < 0 && errno == EFAULT && run->exit_reason == EXIT_MEMORY_FAULT;
    if (!memory_fault || fault->flags != FAULT_IS_USERFAULT || fault->bytes != PAGE_BYTES) {
      printf("  KVM_RUN %d, flags %#llx\n", result, (unsigned long long)fault->flags);
      print_vcpu();
      die("an exit that nobody expected");
    }
    exits++;
    fill(fault->gpa);
  }
}

u64 guest_read(int n) { return ((u64 *)(boot + READ))[n]; }

int guest_touch_once(u64 gpa) {
  point_at(&gpa, 1);
  return ioctl(vcpu, KVM_RUN, 0);
}

int guest_outs(u64 gpa) {
  set_registers(&(struct kvm_regs){.rip = CODE + (u64)(code_outs - code_touch), .rflags = 2, .rsi = gpa});
  return ioctl(vcpu, KVM_RUN, 0);
}
