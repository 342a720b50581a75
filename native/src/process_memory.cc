#include "process_memory.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <cerrno>

#include "addon.h"
#include "args.h"
#include "process_maps.h"
#include "scan.h"

namespace pagewake {

namespace {

std::string hex(uint64_t value) {
  char text[32];
  snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

// Reading one byte at address 0 asks for the permission alone: EFAULT says that there is one.
int permission_error(pid_t pid) {
  uint8_t byte = 0;
  const iovec local{&byte, 1};
  const iovec remote{nullptr, 1};
  return ::process_vm_readv(pid, &local, 1, &remote, 1, 0) < 0 && errno != EFAULT ? errno : 0;
}

struct ScanRange {
  uint64_t address;
  uint64_t length;
  uint64_t pageSize;
};

// False where the scan must end. `from` and `to` are bytes of the scan: whole pages that begin in this mapping.
bool scan_mapping(const TargetProcess& process, const process::Mapping& mapping, const ScanRange& range, uint64_t from, uint64_t to,
                  PageScanner& scanner) {
  process::Population population(process.pid, mapping);
  const uint64_t limit = mapping.end - range.address < to ? mapping.end - range.address : to;
  for (uint64_t at = from; at < to;) {
    const ByteRun run = population.next(range.address + at, range.address + limit);
    if (run.length == 0) {
      // A last page that reaches into the next mapping is read: nothing is known of its rest.
      const uint64_t whole = limit / range.pageSize * range.pageSize;
      if (whole > at) scanner.zeros(at, whole - at);
      at = whole > at ? whole : at;
      return at >= to || scanner.scan(at, to - at);
    }
    const uint64_t first = (run.first - range.address) / range.pageSize * range.pageSize;
    const uint64_t end = (run.first + run.length - range.address + range.pageSize - 1) / range.pageSize * range.pageSize;
    scanner.zeros(at, first - at);
    if (!scanner.scan(first, end - first)) return false;
    at = end;
  }
  return true;
}

void scan_process(const TargetProcess& process, const ScanRange& range, ScanResult& result) {
  int error = 0;
  const auto mappings = process::mappings(process.pid, range.address, range.address + range.length, error);
  if (error != 0) return result.fail(error == ENOENT ? ESRCH : error, "smaps", "process " + std::to_string(process.pid));
  for (const process::Mapping& mapping : mappings) {
    // Reading what is absent would wait for a pager, and calling it zero would be a lie.
    if (mapping.trapped) {
      return result.fail(EBUSY, "smaps", "memory at " + hex(mapping.start) + " is registered with a userfaultfd: it is not whole yet");
    }
  }
  PageScanner scanner(
      range.pageSize, "process_vm_readv",
      [&](std::span<uint8_t> into, uint64_t at) { return process.read(into, range.address + at); }, result);
  uint64_t at = 0;
  for (const process::Mapping& mapping : mappings) {
    if (mapping.start > range.address + at) break;
    const uint64_t end = mapping.end - range.address < range.length ? mapping.end - range.address : range.length;
    const uint64_t to = (end + range.pageSize - 1) / range.pageSize * range.pageSize;
    if (to <= at) continue;
    if (!scan_mapping(process, mapping, range, at, to, scanner)) return;
    at = to;
  }
  if (at < range.length) return result.fail(EFAULT, "smaps", "nothing is mapped at " + hex(range.address + at));
  // The numbers in /proc may have come to mean another process meanwhile.
  if (!process.alive()) result.fail(ESRCH, "smaps", "process " + std::to_string(process.pid) + " exited during the scan");
}

}  // namespace

bool TargetProcess::alive() const {
  pollfd poll{pidfd.get(), POLLIN, 0};
  return ::poll(&poll, 1, 0) == 0;
}

Outcome TargetProcess::read(std::span<uint8_t> into, uint64_t address) const {
  uint64_t total = 0;
  int error = 0;
  while (total < into.size() && error == 0) {
    const iovec local{into.data() + total, into.size() - total};
    const iovec remote{reinterpret_cast<void*>(address + total), into.size() - total};
    const ssize_t got = ::process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (got > 0) {
      total += static_cast<uint64_t>(got);
    } else if (got == 0 || errno != EINTR) {
      error = got == 0 ? EFAULT : errno;
    }
  }
  // After the read: as long as the process we mean has not been reaped, nobody else can have had its number.
  if (::syscall(SYS_pidfd_send_signal, pidfd.get(), 0, nullptr, 0) != 0 && errno == ESRCH) return stopped(Call::processRead, ESRCH, 0);
  return error == 0 ? done(total) : stopped(Call::processRead, error, total);
}

Napi::Function ProcessMemory::define(Napi::Env env) {
  using P = ProcessMemory;
  return DefineClass(env, "ProcessMemory",
                     {InstanceMethod("read", &P::read), InstanceMethod("scanZeroPages", &P::scan_zero_pages),
                      InstanceMethod("alive", &P::alive), InstanceMethod("close", &P::close)});
}

// (pid)
ProcessMemory::ProcessMemory(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProcessMemory>(info) {
  Args args(info);
  const auto pid = static_cast<pid_t>(args.integer(0, "pid", 1, INT32_MAX));
  if (!args) return;
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.open()) {
    throw_native(info.Env(), errno, "pidfd_open", "process " + std::to_string(pid));
    return;
  }
  const int error = permission_error(pid);
  if (error != 0) {
    throw_native(info.Env(), error, "process_vm_readv",
                 "process " + std::to_string(pid) + (error == EPERM ? ": needs CAP_SYS_PTRACE, or its user and a ptrace_scope that allows it" : ""));
    return;
  }
  process_ = std::make_shared<const TargetProcess>(TargetProcess{pid, std::move(pidfd)});
}

bool ProcessMemory::require_open(const Napi::CallbackInfo& info, const char* call) {
  if (process_ != nullptr) return true;
  throw_native(info.Env(), EBADF, call, "this process memory is closed");
  return false;
}

// (into, intoOffset, length, address) -> outcome
Napi::Value ProcessMemory::read(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> into = args.slice(0, "into");
  const uint64_t address = args.whole(3, "address");
  if (!args || !require_open(info, "process_vm_readv")) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), encode(process_->read(into, address)));
}

// (address, length, pageSizeBytes) -> promise of pairs: first byte after `address`, length
Napi::Value ProcessMemory::scan_zero_pages(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t address = args.whole(0, "address");
  const uint64_t length = args.whole(1, "length");
  const uint64_t pageSize = args.whole(2, "pageSizeBytes", UINT32_MAX);
  args.require(pageSize > 0 && length % (pageSize > 0 ? pageSize : 1) == 0, "length must be a whole number of pages");
  if (!args || !require_open(info, "process_vm_readv")) return info.Env().Undefined();
  return run_scan(info.Env(), [process = process_, range = ScanRange{address, length, pageSize}](ScanResult& result) {
    scan_process(*process, range, result);
  });
}

Napi::Value ProcessMemory::alive(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), process_ != nullptr && process_->alive());
}

void ProcessMemory::close(const Napi::CallbackInfo&) { process_.reset(); }

void init_process_memory(Napi::Env env, Napi::Object exports) { exports.Set("ProcessMemory", ProcessMemory::define(env)); }

}  // namespace pagewake
