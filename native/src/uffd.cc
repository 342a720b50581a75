#include "uffd.h"

#include <time.h>

#include <cerrno>
#include <cstring>

#include "addon.h"
#include "handed_over.h"
#include "kernel_abi.h"
#include "ledger_registry.h"
#include "uffd_calls.h"
#include "userfault_bitmap.h"

namespace pagewake {

namespace {

constexpr size_t kEventFields = 5;  // UFFD_EVENT_FIELDS

double monotonic_now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// The fields of ts/types.ts, UFFD_EVENT_FIELDS.
void store_event(const uffd_msg& message, double timeMs, double* into) {
  double address = 0, flags = 0, third = 0;
  switch (message.event) {
    case UFFD_EVENT_PAGEFAULT:
      address = static_cast<double>(message.arg.pagefault.address);
      flags = static_cast<double>(message.arg.pagefault.flags);
      third = static_cast<double>(message.arg.pagefault.feat.ptid);
      break;
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
      address = static_cast<double>(message.arg.remove.start);
      flags = static_cast<double>(message.arg.remove.end);
      break;
    case UFFD_EVENT_REMAP:
      address = static_cast<double>(message.arg.remap.from);
      flags = static_cast<double>(message.arg.remap.to);
      third = static_cast<double>(message.arg.remap.len);
      break;
    case UFFD_EVENT_FORK:
      address = static_cast<double>(message.arg.fork.ufd);
      break;
    default:
      break;
  }
  const double fields[kEventFields] = {static_cast<double>(message.event), address, flags, third, timeMs};
  std::memcpy(into, fields, sizeof fields);
}

struct Batch {
  int count;  // events, or a negative errno
  bool onlyFaults;
};

Batch read_events(int fd, std::span<double> into) {
  uffd_msg messages[uffd::kBatch];
  const size_t room = into.size() / kEventFields;
  const int capacity = room < uffd::kBatch ? static_cast<int>(room) : uffd::kBatch;
  if (capacity == 0) return {-EINVAL, true};
  Batch batch{uffd::read_messages(fd, messages, capacity), true};
  const double timeMs = monotonic_now_ms();
  for (int i = 0; i < batch.count; i++) {
    store_event(messages[i], timeMs, into.data() + static_cast<size_t>(i) * kEventFields);
    batch.onlyFaults = batch.onlyFaults && messages[i].event == UFFD_EVENT_PAGEFAULT;
  }
  return batch;
}

}  // namespace

Napi::Function Uffd::define(Napi::Env env) {
  return DefineClass(env, "Uffd",
                     {StaticMethod("open", &Uffd::open), InstanceMethod("fd", &Uffd::fd),
                      InstanceMethod("duplicate", &Uffd::duplicate), InstanceMethod("handshake", &Uffd::handshake),
                      InstanceMethod("register", &Uffd::register_range), InstanceMethod("unregister", &Uffd::unregister),
                      InstanceMethod("copy", &Uffd::copy), InstanceMethod("copyRequested", &Uffd::copy_requested),
                      InstanceMethod("zeropage", &Uffd::zeropage),
                      InstanceMethod("continue", &Uffd::continue_pages), InstanceMethod("wake", &Uffd::wake),
                      InstanceMethod("poison", &Uffd::poison), InstanceMethod("poll", &Uffd::poll),
                      InstanceMethod("drain", &Uffd::drain), InstanceMethod("stopPolling", &Uffd::stop_polling),
                      InstanceMethod("close", &Uffd::close)});
}

// (descriptor): takes ownership, unless it throws.
Uffd::Uffd(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Uffd>(info) {
  Args args(info);
  const GivenFd given = args.given_fd(0, "fd");
  if (!args || !kept_by_javascript(*this)) return;
  const int fd = given.fd;
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) {
    throw_native(info.Env(), errno, "fcntl", "descriptor " + std::to_string(fd));
    return;
  }
  char link[64];
  char target[64] = {};
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  // Without /proc nothing is known, and the first call will tell.
  if (::readlink(link, target, sizeof target - 1) > 0 && std::strcmp(target, "anon_inode:[userfaultfd]") != 0) {
    throw_native(info.Env(), EINVAL, "userfaultfd", "descriptor " + std::to_string(fd) + " is not a userfaultfd but " + target);
    return;
  }
  // A blocking userfaultfd polls as an error, and a reader that lost a race would hang.
  if ((flags & O_NONBLOCK) == 0 && ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    throw_native(info.Env(), errno, "fcntl", "descriptor " + std::to_string(fd));
    return;
  }
  fd_ = given.take();
}

// (device: boolean, userModeOnly: boolean) -> External
Napi::Value Uffd::open(const Napi::CallbackInfo& info) {
  Args args(info);
  const bool device = args.flag(0, "device");
  const bool userModeOnly = args.flag(1, "userModeOnly");
  if (!args) return info.Env().Undefined();
  UniqueFd fd = device ? uffd::open_by_device(userModeOnly) : uffd::open_by_syscall(userModeOnly);
  if (!fd.open()) {
    const int error = errno;
    const char* hint = error != EPERM && error != EACCES ? ""
                       : device ? "give the agent access to /dev/userfaultfd"
                                : "run with CAP_SYS_PTRACE, set vm.unprivileged_userfaultfd=1, or use /dev/userfaultfd";
    throw_native(info.Env(), error, device ? "/dev/userfaultfd" : "userfaultfd", hint);
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(fd));
}

bool Uffd::require_open(const Napi::CallbackInfo& info, const char* call) {
  if (fd_.open()) return true;
  throw_native(info.Env(), EBADF, call, "this userfaultfd is closed");
  return false;
}

Napi::Value Uffd::fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd_.get()); }

Napi::Value Uffd::duplicate(const Napi::CallbackInfo& info) {
  if (!require_open(info, "fcntl")) return info.Env().Undefined();
  UniqueFd copy = fd_.duplicate();
  if (!copy.open()) {
    throw_native(info.Env(), errno, "fcntl", "F_DUPFD_CLOEXEC");
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(copy));
}

// (features) -> [features, ioctls: bigint]
Napi::Value Uffd::handshake(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t features = args.whole(0, "features");
  if (!args || !require_open(info, "UFFDIO_API")) return info.Env().Undefined();
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  if (::ioctl(fd_.get(), UFFDIO_API, &api) != 0) {
    throw_native(info.Env(), errno, "UFFDIO_API", "features " + std::to_string(features) + "; a handshake is possible once");
    return info.Env().Undefined();
  }
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  result.Set(0u, Napi::Number::New(info.Env(), static_cast<double>(api.features)));
  result.Set(1u, Napi::BigInt::New(info.Env(), static_cast<uint64_t>(api.ioctls)));
  return result;
}

// (address, length, mode bits: 1 missing, 2 write-protect, 4 minor) -> ioctls mask
Napi::Value Uffd::register_range(const Napi::CallbackInfo& info) {
  Args args(info);
  uffdio_register argument{};
  argument.range.start = args.whole(0, "address");
  argument.range.len = args.whole(1, "length");
  argument.mode = args.whole(2, "mode", 7);
  if (!args || !require_open(info, "UFFDIO_REGISTER")) return info.Env().Undefined();
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &argument) != 0) {
    char range[96];
    snprintf(range, sizeof range, "%llu bytes at %#llx, mode %llu", static_cast<unsigned long long>(argument.range.len),
             static_cast<unsigned long long>(argument.range.start), static_cast<unsigned long long>(argument.mode));
    throw_native(info.Env(), errno, "UFFDIO_REGISTER", range);
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), static_cast<double>(argument.ioctls));
}

// (address, source, offset, length, wake) -> outcome
Napi::Value Uffd::copy(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t address = args.whole(0, "address");
  const std::span<uint8_t> source = args.slice(1, "source");
  const bool wake = args.flag(4, "wake");
  if (!args || !require_open(info, "UFFDIO_COPY")) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), encode(uffd::copy(fd_.get(), address, source.data(), source.size(), wake)));
}

// (address, source, offset, length, ledger id, page, bitmap or null, its page) -> outcome. Check, copy, the bitmap's bit and the ledger's transition under one
// shared lock, as PageInstaller does it in six calls. A fault waits for the page: nobody has to be told who was woken.
Napi::Value Uffd::copy_requested(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Args args(info);
  const uint64_t address = args.whole(0, "address");
  const std::span<uint8_t> source = args.slice(1, "source");
  const auto ledgerId = static_cast<uint32_t>(args.whole(4, "ledger", UINT32_MAX));
  const uint64_t page = args.whole(5, "page");
  BitmapMapping* bitmap = nullptr;
  uint64_t bit = 0;
  if (args && !info[6].IsNull() && !info[6].IsUndefined()) {
    UserfaultBitmap* given = UserfaultBitmap::of(info[6]);
    if (given == nullptr || !given->mapping().mapped()) {
      throw_native(env, given == nullptr ? EINVAL : EBADF, "UFFDIO_COPY", "this is no open UserfaultBitmap");
      return env.Undefined();
    }
    bitmap = &given->mapping();
    bit = args.whole(7, "bitmapPage", bitmap->pages() - 1);
  }
  if (!args || !require_open(info, "UFFDIO_COPY")) return env.Undefined();
  const std::shared_ptr<Ledger> ledger = ledgers::find(ledgerId);
  if (ledger == nullptr) {
    throw_native(env, EBADF, "UFFDIO_COPY", "there is no ledger " + std::to_string(ledgerId));
    return env.Undefined();
  }
  args.require(page < ledger->page_count(), "page is not within the ledger");
  if (!args) return env.Undefined();
  const int locked = ledger->install_lock().lock_shared();
  if (locked != 0) {
    throw_native(env, locked, "pthread_rwlock", "copyRequested under the exclusive lock");
    return env.Undefined();
  }
  Outcome outcome = done(0);
  if (ledger->state(page) == PageState::requested) {
    outcome = uffd::copy(fd_.get(), address, source.data(), source.size(), true);
    if (outcome.kind == OutcomeKind::done) {
      // First of all: COPY woke its thread already, and a vCPU that reads the page next is to find it.
      if (bitmap != nullptr) bitmap->clear(bit, 1);
      ledger->installed(page, 1, [](uint64_t) {});
    }
  }
  ledger->install_lock().unlock();
  return Napi::Number::New(env, encode(outcome));
}

Napi::Value Uffd::range_call(const Napi::CallbackInfo& info, const char* name, RangeCall call) {
  Args args(info);
  const uint64_t address = args.whole(0, "address");
  const uint64_t length = args.whole(1, "length", kMaxCallBytes);
  if (!args || !require_open(info, name)) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), encode(call(fd_.get(), address, length)));
}

Napi::Value Uffd::unregister(const Napi::CallbackInfo& info) { return range_call(info, "UFFDIO_UNREGISTER", uffd::unregister); }
Napi::Value Uffd::zeropage(const Napi::CallbackInfo& info) { return range_call(info, "UFFDIO_ZEROPAGE", uffd::zeropage); }
Napi::Value Uffd::continue_pages(const Napi::CallbackInfo& info) {
  return range_call(info, "UFFDIO_CONTINUE", uffd::continue_pages);
}
Napi::Value Uffd::wake(const Napi::CallbackInfo& info) { return range_call(info, "UFFDIO_WAKE", uffd::wake); }
Napi::Value Uffd::poison(const Napi::CallbackInfo& info) { return range_call(info, "UFFDIO_POISON", uffd::poison); }

// (events, onEvents(count), onClosed(error), ledger id or 0, onRemoval(count) where there is a ledger)
Napi::Value Uffd::poll(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Args args(info);
  const std::span<double> events = args.doubles(0, "events");
  const Napi::Function onEvents = args.function(1, "onEvents");
  const Napi::Function onClosed = args.function(2, "onClosed");
  args.require(events.size() >= kEventFields * uffd::kBatch, "events must have room for a batch");
  const auto ledgerId = static_cast<uint32_t>(args.whole(3, "ledger", UINT32_MAX));
  const bool locked = ledgerId != 0;
  const Napi::Function onRemoval = locked ? args.function(4, "onRemoval") : Napi::Function();
  if (!args || !require_open(info, "uv_poll_start")) return env.Undefined();
  if (poll_ != nullptr) {
    throw_native(env, EBUSY, "uv_poll_start", "this userfaultfd is being polled: one reader each");
    return env.Undefined();
  }
  std::shared_ptr<Ledger> ledger;
  if (locked && (ledger = ledgers::find(ledgerId)) == nullptr) {
    throw_native(env, EBADF, "uv_poll_start", "there is no ledger " + std::to_string(ledgerId));
    return env.Undefined();
  }
  std::shared_ptr<LoopPoll> poll = LoopPoll::create(env, fd_.get(), [this](int status, int) { on_readable(status); });
  if (poll == nullptr) return env.Undefined();
  const int status = poll->watch(UV_READABLE);
  if (status != 0) {
    poll->close();
    throw_native(env, -status, "uv_poll_start", "userfaultfd");
    return env.Undefined();
  }
  poll_ = std::move(poll);
  ledger_ = std::move(ledger);
  context_ = std::make_unique<Napi::AsyncContext>(env, "pagewake.Uffd");
  events_ = Napi::Reference<Napi::Value>::New(info[0], 1);
  onEvents_ = Napi::Persistent(onEvents);
  onClosed_ = Napi::Persistent(onClosed);
  if (locked) onRemoval_ = Napi::Persistent(onRemoval);
  Ref();  // the loop calls this object: it must outlive the last mention of it in JavaScript
  return env.Undefined();
}

// One batch to JavaScript; true where there may be more.
bool Uffd::read_batch() {
  const Napi::Env env = Env();
  const std::span<double> events = doubles_of(env, events_.Value());
  // A REMOVE must be in the ledger before anybody installs into the range again, and the madvise() that caused it goes on
  // as soon as the event is read: so the lock is taken before the read.
  if (ledger_ != nullptr) ledger_->install_lock().lock_exclusive();
  const Batch batch = read_events(fd_.get(), events);
  const Napi::Number count = Napi::Number::New(env, batch.count);
  if (ledger_ != nullptr) {
    const std::shared_ptr<Ledger> ledger = ledger_;  // the callback may stop the polling
    if (batch.count > 0 && !batch.onlyFaults) call_from_loop(env, onRemoval_, *context_, {count});
    ledger->install_lock().unlock();
  }
  if (batch.count == -EAGAIN || batch.count == 0) return false;
  if (poll_ == nullptr) return false;
  if (batch.count < 0) {
    on_readable(batch.count);
    return false;
  }
  call_from_loop(env, onEvents_, *context_, {count});
  return batch.count == uffd::kBatch;
}

void Uffd::on_readable(int status) {
  const Napi::Env env = Env();
  const Napi::HandleScope scope(env);
  if (status < 0) {
    const Napi::FunctionReference onClosed = std::move(onClosed_);
    const std::unique_ptr<Napi::AsyncContext> context = std::move(context_);
    const Napi::Value error = native_error(env, -status, "poll", "the userfaultfd cannot be read any more");
    end_polling();
    if (!error.IsEmpty()) call_from_loop(env, onClosed, *context, {error});
    return;
  }
  for (int batch = 0; batch < kBatchesPerTurn && poll_ != nullptr && read_batch(); batch++) {
  }
}

// (events) -> count, without blocking; 0 where there is none
Napi::Value Uffd::drain(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<double> events = args.doubles(0, "events");
  args.require(events.size() >= kEventFields, "events has no room for one event");
  if (!args || !require_open(info, "read")) return info.Env().Undefined();
  const Batch batch = read_events(fd_.get(), events);
  if (batch.count < 0 && batch.count != -EAGAIN) {
    throw_native(info.Env(), -batch.count, "read", "userfaultfd; was the handshake done?");
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), batch.count > 0 ? batch.count : 0);
}

void Uffd::end_polling() {
  if (poll_ == nullptr) return;
  poll_->close();
  poll_.reset();
  ledger_.reset();
  events_.Reset();
  onEvents_.Reset();
  onClosed_.Reset();
  onRemoval_.Reset();
  Unref();
}

void Uffd::stop_polling(const Napi::CallbackInfo&) { end_polling(); }

void Uffd::close(const Napi::CallbackInfo&) {
  end_polling();
  shut();
}

// The poll goes first: libuv must not watch a number that somebody else may get.
void Uffd::shut() {
  if (poll_ != nullptr) poll_->close();
  poll_.reset();
  fd_.reset();
}

void init_uffd(Napi::Env env, Napi::Object exports) { exports.Set("Uffd", Uffd::define(env)); }

}  // namespace pagewake
