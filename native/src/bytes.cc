// Work that needs no object: checksum, zero pages of a buffer, clock, niceness, a descriptor's copy, a file's lock.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "addon.h"
#include "args.h"
#include "unique_fd.h"
#include "zero.h"

namespace pagewake {

namespace {

// (bytes, offset, length, seedHigh, seedLow) -> the low 32 bits of XXH3-64 with that seed
Napi::Value checksum(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> bytes = args.slice(0, "bytes");
  const uint64_t seedHigh = args.whole(3, "seedHigh", UINT32_MAX);
  const uint64_t seedLow = args.whole(4, "seedLow", UINT32_MAX);
  if (!args) return info.Env().Undefined();
  const XXH64_hash_t hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), seedHigh << 32 | seedLow);
  return Napi::Number::New(info.Env(), static_cast<double>(static_cast<uint32_t>(hash)));
}

// (bytes, offset, length, pageSizeBytes) -> Uint32Array of pairs: first page, count
Napi::Value zero_runs(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> bytes = args.slice(0, "bytes");
  const uint64_t pageSize = args.whole(3, "pageSizeBytes", UINT32_MAX);
  args.require(pageSize > 0 && bytes.size() % (pageSize > 0 ? pageSize : 1) == 0, "length must be a whole number of pages");
  if (!args) return info.Env().Undefined();
  std::vector<uint32_t> pairs;
  const auto pages = static_cast<uint32_t>(bytes.size() / pageSize);
  for (uint32_t page = 0; page < pages; page++) {
    if (!is_zero(bytes.data() + page * pageSize, pageSize)) continue;
    if (!pairs.empty() && pairs[pairs.size() - 2] + pairs.back() == page) {
      pairs.back()++;
    } else {
      pairs.insert(pairs.end(), {page, 1});
    }
  }
  Napi::Uint32Array result = Napi::Uint32Array::New(info.Env(), pairs.size());
  // Null where the environment is being torn down.
  if (result.Data() != nullptr) std::copy(pairs.begin(), pairs.end(), result.Data());
  return result;
}

Napi::Value monotonic_ms(const Napi::CallbackInfo& info) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return Napi::Number::New(info.Env(), static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6);
}

void set_thread_nice(const Napi::CallbackInfo& info) {
  Args args(info);
  const auto nice = static_cast<int>(args.integer(0, "nice", -20, 19));
  if (!args) return;
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  if (::setpriority(PRIO_PROCESS, thread, nice) != 0) {
    throw_native(info.Env(), errno, "setpriority", "nice " + std::to_string(nice) + " of thread " + std::to_string(thread));
  }
}

// (fd) -> another descriptor of the same open file, closed on exec
Napi::Value duplicate_descriptor(const Napi::CallbackInfo& info) {
  Args args(info);
  const int fd = args.descriptor(0, "fd");
  if (!args) return info.Env().Undefined();
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) {
    throw_native(info.Env(), errno, "fcntl", "F_DUPFD_CLOEXEC of descriptor " + std::to_string(fd));
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), copy);
}

// (fd, bytes) -> how many the kernel took; 0: none. What is wrong with the socket is told to whoever writes the usual way then.
Napi::Value send_now(const Napi::CallbackInfo& info) {
  Args args(info);
  const int fd = args.descriptor(0, "fd");
  const std::span<uint8_t> bytes = args.bytes(1, "bytes");
  if (!args) return info.Env().Undefined();
  const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  return Napi::Number::New(info.Env(), sent > 0 ? static_cast<double>(sent) : 0);
}

// (path) -> a descriptor that holds the lock, as long as it is open. A child does not inherit it, and a process that is killed
// gives it back only when its last thread has left the kernel: whoever gets it then has nobody's call under way beside it.
Napi::Value lock_file(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::string path = args.text(0, "path");
  if (!args) return info.Env().Undefined();
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.open() || ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    throw_native(info.Env(), errno, fd.open() ? "flock" : "open", path);
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), fd.release());
}

}  // namespace

void init_bytes(Napi::Env env, Napi::Object exports) {
  exports.Set("checksum", Napi::Function::New(env, checksum, "checksum"));
  exports.Set("zeroRuns", Napi::Function::New(env, zero_runs, "zeroRuns"));
  exports.Set("monotonicMs", Napi::Function::New(env, monotonic_ms, "monotonicMs"));
  exports.Set("duplicateDescriptor", Napi::Function::New(env, duplicate_descriptor, "duplicateDescriptor"));
  exports.Set("lockFile", Napi::Function::New(env, lock_file, "lockFile"));
  exports.Set("sendNow", Napi::Function::New(env, send_now, "sendNow"));
  exports.Set("setThreadNice", Napi::Function::New(env, set_thread_nice, "setThreadNice"));
}

}  // namespace pagewake
