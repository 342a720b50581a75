#include "memory_file.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <vector>

#include "addon.h"
#include "handed_over.h"
#include "holes.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

namespace pagewake {

namespace {

// After the search: past the end of a file everything looks like a hole.
void refuse_shorter(int fd, uint64_t end, HoleSearch& search) {
  const int64_t size = file::size(fd);
  if (size >= 0 && static_cast<uint64_t>(size) >= end) return;
  search.fail(EFAULT, "fstat", "the file became shorter: " + std::to_string(size) + " bytes");
}

}  // namespace

Napi::Function MemoryFile::define(Napi::Env env) {
  using M = MemoryFile;
  return DefineClass(
      env, "MemoryFile",
      {StaticMethod("createMemfd", &M::create_memfd), StaticMethod("open", &M::open),
       StaticMethod("createGuestMemfd", &M::create_guest_memfd), InstanceMethod("fd", &M::fd),
       InstanceMethod("sizeBytes", &M::size_bytes), InstanceMethod("kind", &M::kind), InstanceMethod("writable", &M::writable),
       InstanceMethod("write", &M::write),
       InstanceMethod("writeRuns", &M::write_runs), InstanceMethod("read", &M::read), InstanceMethod("dataRuns", &M::data_runs),
       InstanceMethod("punch", &M::punch), InstanceMethod("store", &M::store), InstanceMethod("load", &M::load),
       InstanceMethod("findHoles", &M::find_holes),
       InstanceMethod("stillHoles", &M::still_holes), InstanceMethod("duplicate", &M::duplicate),
       InstanceMethod("close", &M::close)});
}

// (descriptor, External of its virtual machine or null): takes ownership, unless it throws.
MemoryFile::MemoryFile(const Napi::CallbackInfo& info) : Napi::ObjectWrap<MemoryFile>(info) {
  Args args(info);
  const GivenFd given = args.given_fd(0, "fd");
  const GivenFd vm = info[1].IsNull() ? GivenFd() : args.given_fd(1, "vm");
  if (!args || !kept_by_javascript(*this)) return;
  const int64_t size = file::size(given.fd);
  if (size < 0) {
    throw_native(info.Env(), static_cast<int>(-size), "fstat", "descriptor " + std::to_string(given.fd));
    return;
  }
  knownSizeBytes_ = static_cast<uint64_t>(size);
  fd_ = given.take();
  vm_ = vm.take();
}

// (name, sizeBytes, hugePages2MiB, sealable) -> External
Napi::Value MemoryFile::create_memfd(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::string name = args.text(0, "name");
  const uint64_t size = args.whole(1, "sizeBytes");
  const bool huge = args.flag(2, "hugePages2MiB");
  const bool sealable = args.flag(3, "sealable");
  if (!args) return info.Env().Undefined();
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | (sealable ? MFD_ALLOW_SEALING : 0u) | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0u)));
  if (!fd.open()) {
    throw_native(info.Env(), errno, "memfd_create", name);
    return info.Env().Undefined();
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    throw_native(info.Env(), errno, "ftruncate", name + " to " + std::to_string(size) + " bytes");
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(fd));
}

// (path, write) -> External
Napi::Value MemoryFile::open(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::string path = args.text(0, "path");
  const bool writable = args.flag(1, "write");
  if (!args) return info.Env().Undefined();
  // Non-blocking, or opening a FIFO would hang; it means nothing for files.
  UniqueFd fd(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (!fd.open() || ::fstat(fd.get(), &status) != 0) {
    throw_native(info.Env(), errno, "open", path);
    return info.Env().Undefined();
  }
  if (!S_ISREG(status.st_mode)) {
    throw_native(info.Env(), EINVAL, "open", path + " is not a file that holds memory");
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(fd));
}

// (sizeBytes, flags) -> [External, External of its virtual machine]
Napi::Value MemoryFile::create_guest_memfd(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t size = args.whole(0, "sizeBytes");
  const uint64_t flags = args.whole(1, "flags");
  if (!args) return info.Env().Undefined();
  file::GuestMemfd made = file::create_guest_memfd(size, flags);
  if (made.error != 0) {
    throw_native(info.Env(), made.error, made.call, made.hint);
    return info.Env().Undefined();
  }
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  result.Set(0u, handed_over(info.Env(), std::move(made.fd)));
  result.Set(1u, handed_over(info.Env(), std::move(made.vm)));
  return result;
}

bool MemoryFile::require_open(const Napi::CallbackInfo& info, const char* call) {
  if (fd_.open()) return true;
  throw_native(info.Env(), EBADF, call, "this memory file is closed");
  return false;
}

// Memory does not grow: an offset past the end is a mistake, and pwrite() would quietly make the file longer.
bool MemoryFile::require_inside(const Napi::CallbackInfo& info, uint64_t offset, uint64_t length) {
  if (offset <= knownSizeBytes_ && length <= knownSizeBytes_ - offset) return true;
  return require_inside_now(info, offset, length);
}

// Looks at the size anew: where the answer would be wrong for a file that became shorter, whose end looks like a hole.
bool MemoryFile::require_inside_now(const Napi::CallbackInfo& info, uint64_t offset, uint64_t length) {
  const int64_t size = file::size(fd_.get());
  knownSizeBytes_ = size > 0 ? static_cast<uint64_t>(size) : 0;
  Args args(info);
  args.require_within(offset, length, knownSizeBytes_, "the memory file");
  return static_cast<bool>(args);
}

Napi::Value MemoryFile::fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd_.get()); }

Napi::Value MemoryFile::size_bytes(const Napi::CallbackInfo& info) {
  if (!require_open(info, "fstat")) return info.Env().Undefined();
  const int64_t size = file::size(fd_.get());
  if (size < 0) {
    throw_native(info.Env(), static_cast<int>(-size), "fstat", "");
    return info.Env().Undefined();
  }
  knownSizeBytes_ = static_cast<uint64_t>(size);
  return Napi::Number::New(info.Env(), static_cast<double>(size));
}

Napi::Value MemoryFile::kind(const Napi::CallbackInfo& info) {
  if (!require_open(info, "fstat")) return info.Env().Undefined();
  return Napi::String::New(info.Env(), file::kind(fd_.get()));
}

// () -> boolean
Napi::Value MemoryFile::writable(const Napi::CallbackInfo& info) {
  if (!require_open(info, "pwrite")) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), file::writable(fd_.get()));
}

// (source, sourceOffset, length, fileOffset) -> outcome
Napi::Value MemoryFile::write(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> source = args.slice(0, "source");
  const uint64_t offset = args.whole(3, "fileOffset");
  if (!args || !require_open(info, "pwrite") || !require_inside(info, offset, source.size())) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), encode(file::write(fd_.get(), source, offset)));
}

// (source, runs: triples of sourceOffset, length, fileOffset) -> outcome
Napi::Value MemoryFile::write_runs(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> source = args.bytes(0, "source");
  const std::span<double> triples = args.doubles(1, "runs");
  args.require(triples.size() % 3 == 0, "runs must be triples of sourceOffset, length, fileOffset");
  for (const double value : triples) args.require(value >= 0 && value <= static_cast<double>(kMaxWhole), "runs must be whole numbers");
  if (!args || !require_open(info, "pwritev")) return info.Env().Undefined();
  std::vector<file::WriteRun> runs(triples.size() / 3);
  for (size_t i = 0; i < runs.size(); i++) {
    const auto from = static_cast<uint64_t>(triples[i * 3]);
    const auto length = static_cast<uint64_t>(triples[i * 3 + 1]);
    const auto to = static_cast<uint64_t>(triples[i * 3 + 2]);
    args.require_within(from, length, source.size(), "source");
    if (!args || !require_inside(info, to, length)) return info.Env().Undefined();
    runs[i] = {source.data() + from, length, to};
  }
  return Napi::Number::New(info.Env(), encode(file::write_runs(fd_.get(), runs)));
}

// (into, intoOffset, length, fileOffset) -> outcome
Napi::Value MemoryFile::read(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> into = args.slice(0, "into");
  const uint64_t offset = args.whole(3, "fileOffset");
  if (!args || !require_open(info, "pread")) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), encode(file::read(fd_.get(), into, offset)));
}

// (offset, length) -> pairs: first byte, length
Napi::Value MemoryFile::data_runs(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t offset = args.whole(0, "offset");
  const uint64_t length = args.whole(1, "length");
  if (!args || !require_open(info, "lseek") || !require_inside_now(info, offset, length)) return info.Env().Undefined();
  RunList runs;
  for (auto data = file::next_data(fd_.get(), offset, offset + length); data;
       data = file::next_data(fd_.get(), data->first + data->length, offset + length)) {
    runs.add(data->first, data->length);
  }
  return runs.to_array(info.Env());
}

// (offset, length) -> outcome
Napi::Value MemoryFile::punch(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t offset = args.whole(0, "offset");
  const uint64_t length = args.whole(1, "length", kMaxCallBytes);
  if (!args || !require_open(info, "fallocate") || !require_inside(info, offset, length)) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), encode(file::punch(fd_.get(), offset, length)));
}

template <class Transfer>
Napi::Value MemoryFile::through_mapping(const Napi::CallbackInfo& info, Call call, Transfer transfer) {
  Args args(info);
  const std::span<uint8_t> bytes = args.slice(0, "bytes");
  const uint64_t offset = args.whole(3, "fileOffset");
  if (!args || !require_open(info, "mmap")) return info.Env().Undefined();
  if (!require_inside_now(info, offset, bytes.size())) return info.Env().Undefined();
  const int error = mapping_.map(fd_.get(), knownSizeBytes_);
  return Napi::Number::New(info.Env(), encode(error != 0 ? stopped(call, error, 0) : transfer(bytes, offset)));
}

// (source, sourceOffset, length, fileOffset) -> outcome
Napi::Value MemoryFile::store(const Napi::CallbackInfo& info) {
  return through_mapping(info, Call::store, [this](std::span<uint8_t> bytes, uint64_t offset) { return mapping_.store(bytes, offset); });
}

// (into, intoOffset, length, fileOffset) -> outcome
Napi::Value MemoryFile::load(const Napi::CallbackInfo& info) {
  return through_mapping(info, Call::load, [this](std::span<uint8_t> bytes, uint64_t offset) { return mapping_.load(bytes, offset); });
}

// (offset, length, pageSizeBytes) -> promise of pairs: first byte, length
Napi::Value MemoryFile::find_holes(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t offset = args.whole(0, "offset");
  const uint64_t length = args.whole(1, "length");
  const uint64_t pageSize = args.whole(2, "pageSizeBytes", UINT32_MAX);
  args.require(pageSize > 0 && offset % (pageSize > 0 ? pageSize : 1) == 0 && length % (pageSize > 0 ? pageSize : 1) == 0,
               "offset and length must be whole numbers of pages");
  if (!args || !require_open(info, "lseek") || !require_inside_now(info, offset, length)) return info.Env().Undefined();
  // A descriptor of its own: the file may be closed while the search runs.
  auto fd = std::make_shared<UniqueFd>(fd_.duplicate());
  if (!fd->open()) {
    throw_native(info.Env(), errno, "fcntl", "F_DUPFD_CLOEXEC");
    return info.Env().Undefined();
  }
  return pagewake::find_holes(info.Env(), [fd, offset, length, pageSize](HoleSearch& search) {
    search.look([&](uint64_t start, uint64_t end) { return file::next_data(fd->get(), start, end); }, offset, offset + length, pageSize);
    refuse_shorter(fd->get(), offset + length, search);
  });
}

// (holes: pairs of first byte and length, pageSizeBytes) -> pairs
Napi::Value MemoryFile::still_holes(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<double> pairs = args.doubles(0, "holes");
  const uint64_t pageSize = args.whole(1, "pageSizeBytes", UINT32_MAX);
  std::vector<ByteRun> holes;
  args.require(holes_of(pairs, pageSize, holes), "holes must be ascending pairs of first byte and length, whole pages");
  if (!args || !require_open(info, "lseek")) return info.Env().Undefined();
  HoleSearch search;
  search.looksLeft = looks_for(holes.size());
  const NextData next = [this](uint64_t start, uint64_t end) { return file::next_data(fd_.get(), start, end); };
  for (const ByteRun& hole : holes) search.look(next, hole.first, hole.first + hole.length, pageSize);
  if (!holes.empty()) refuse_shorter(fd_.get(), holes.back().first + holes.back().length, search);
  return told_holes(info.Env(), search);
}

// () -> [External, External of its virtual machine or null]
Napi::Value MemoryFile::duplicate(const Napi::CallbackInfo& info) {
  if (!require_open(info, "fcntl")) return info.Env().Undefined();
  UniqueFd fd = fd_.duplicate();
  UniqueFd vm = vm_.open() ? vm_.duplicate() : UniqueFd();
  if (!fd.open() || vm.open() != vm_.open()) {
    throw_native(info.Env(), errno, "fcntl", "F_DUPFD_CLOEXEC");
    return info.Env().Undefined();
  }
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  result.Set(0u, handed_over(info.Env(), std::move(fd)));
  result.Set(1u, vm.open() ? handed_over(info.Env(), std::move(vm)) : info.Env().Null());
  return result;
}

void MemoryFile::close(const Napi::CallbackInfo&) {
  mapping_.unmap();
  fd_.reset();
  vm_.reset();
}

void init_memory_file(Napi::Env env, Napi::Object exports) { exports.Set("MemoryFile", MemoryFile::define(env)); }

}  // namespace pagewake
