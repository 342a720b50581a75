#include "process_memory.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "addon.h"
#include "args.h"
#include "handed_over.h"
#include "holes.h"
#include "process_maps.h"

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

// The mappings that lie in the way of [start, end). False, and `search` says why, where /proc does not tell or memory is not whole.
bool mappings_of(const TargetProcess& process, process::MapsFile from, uint64_t start, uint64_t end, std::vector<process::Mapping>& found,
                 HoleSearch& search) {
  const char* file = from == process::MapsFile::smaps ? "smaps" : "maps";
  int error = 0;
  found = process::mappings(process.pid, from, start, end, error);
  if (error != 0) search.fail(error == ENOENT ? ESRCH : error, file, "process " + std::to_string(process.pid));
  for (const process::Mapping& mapping : found) {
    // Calling absent what is still to come a hole would be a lie.
    if (mapping.trapped) search.fail(EBUSY, file, "memory at " + hex(mapping.start) + " is registered with a userfaultfd: it is not whole yet");
  }
  return search.error == 0;
}

// Holes of `runs`, which ascend: the pages that lie in one mapping and are not populated. Everything else is for the reading to find out.
void search_process(const TargetProcess& process, const std::vector<process::Mapping>& mappings, const std::vector<ByteRun>& runs,
                    uint64_t pageSize, HoleSearch& search) {
  auto run = runs.begin();
  for (const process::Mapping& mapping : mappings) {
    process::Population population(process.pid, mapping);
    const NextData next = [&population](uint64_t start, uint64_t end) -> std::optional<ByteRun> {
      const ByteRun data = population.next(start, end);
      return data.length == 0 ? std::nullopt : std::optional(data);
    };
    const uint64_t first = (mapping.start + pageSize - 1) / pageSize * pageSize;
    const uint64_t last = mapping.end / pageSize * pageSize;
    for (; run != runs.end() && run->first < last; run++) {
      const uint64_t end = run->first + run->length;
      search.look(next, std::max(first, run->first), std::min(last, end), pageSize);
      // It goes on in the next mapping.
      if (end > last) break;
    }
  }
  // The numbers in /proc may have come to mean another process meanwhile.
  if (!process.alive()) search.fail(ESRCH, "maps", "process " + std::to_string(process.pid) + " exited");
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
                     {InstanceMethod("read", &P::read), InstanceMethod("findHoles", &P::find_holes),
                      InstanceMethod("stillHoles", &P::still_holes), InstanceMethod("alive", &P::alive), InstanceMethod("close", &P::close)});
}

// (pid)
ProcessMemory::ProcessMemory(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProcessMemory>(info) {
  Args args(info);
  const auto pid = static_cast<pid_t>(args.integer(0, "pid", 1, INT32_MAX));
  if (!args || !kept_by_javascript(*this)) return;
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

// (address, length, pageSizeBytes) -> promise of pairs: first byte, length
Napi::Value ProcessMemory::find_holes(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t address = args.whole(0, "address");
  const uint64_t length = args.whole(1, "length");
  const uint64_t pageSize = args.whole(2, "pageSizeBytes", UINT32_MAX);
  args.require(pageSize > 0 && address % (pageSize > 0 ? pageSize : 1) == 0 && length % (pageSize > 0 ? pageSize : 1) == 0,
               "address and length must be whole numbers of pages");
  if (!args || !require_open(info, "pagemap")) return info.Env().Undefined();
  return pagewake::find_holes(info.Env(), [process = process_, address, length, pageSize](HoleSearch& search) {
    std::vector<process::Mapping> mappings;
    if (!mappings_of(*process, process::MapsFile::smaps, address, address + length, mappings, search)) return;
    search_process(*process, mappings, {{address, length}}, pageSize, search);
  });
}

// (holes: pairs of first byte and length, pageSizeBytes) -> pairs
Napi::Value ProcessMemory::still_holes(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<double> pairs = args.doubles(0, "holes");
  const uint64_t pageSize = args.whole(1, "pageSizeBytes", UINT32_MAX);
  std::vector<ByteRun> holes;
  args.require(holes_of(pairs, pageSize, holes), "holes must be ascending pairs of first byte and length, whole pages");
  if (!args || !require_open(info, "pagemap")) return info.Env().Undefined();
  HoleSearch search;
  search.looksLeft = looks_for(holes.size());
  std::vector<process::Mapping> mappings;
  const uint64_t start = holes.empty() ? 0 : holes.front().first;
  const uint64_t end = holes.empty() ? 0 : holes.back().first + holes.back().length;
  if (mappings_of(*process_, process::MapsFile::maps, start, end, mappings, search)) {
    search_process(*process_, mappings, holes, pageSize, search);
  }
  return told_holes(info.Env(), search);
}

Napi::Value ProcessMemory::alive(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), process_ != nullptr && process_->alive());
}

void ProcessMemory::close(const Napi::CallbackInfo&) { process_.reset(); }

void init_process_memory(Napi::Env env, Napi::Object exports) { exports.Set("ProcessMemory", ProcessMemory::define(env)); }

}  // namespace pagewake
