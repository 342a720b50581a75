#include "loop_spin.h"

#include <poll.h>
#include <sched.h>
#include <time.h>

#include <algorithm>

#include "addon.h"
#include "args.h"

namespace pagewake {

namespace {

// Where cores are scarce somebody else gets this one at a yield. A moment of that is what a yield is for; more means that whoever waits for us would
// have been served sooner by a thread that slept and was woken. Then spinning rests for ten times as long: a host that is busy for a moment costs
// a moment, and one that is always busy a tenth of the time at most. (A second for each put fast faults off for thousands of them.)
constexpr int64_t kPutAsideNs = 1'000'000;
constexpr int64_t kRestTimes = 10;
constexpr int64_t kNsAMs = 1'000'000;

int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

std::shared_ptr<LoopSpin> LoopSpin::create(Napi::Env env, int64_t forNs) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    Napi::Error::New(env, "this environment has no event loop").ThrowAsJavaScriptException();
    return nullptr;
  }
  std::shared_ptr<LoopSpin> spin(new LoopSpin(loop, forNs));
  uv_prepare_init(loop, &spin->handle_);
  uv_unref(reinterpret_cast<uv_handle_t*>(&spin->handle_));
  spin->handle_.data = spin.get();
  spin->self_ = spin;
  napi_add_async_cleanup_hook(env, &LoopSpin::on_teardown, spin.get(), &spin->hook_);
  return spin;
}

void LoopSpin::touch() {
  if (closing_ || forNs_ == 0) return;
  const int64_t now = now_ns();
  if (now < restUntilNs_) return;
  untilNs_ = now + forNs_;
  uv_prepare_start(&handle_, [](uv_prepare_t* handle) { static_cast<LoopSpin*>(handle->data)->before_sleep(); });
}

void LoopSpin::stop() {
  if (!closing_) uv_prepare_stop(&handle_);
}

LoopSpin::State LoopSpin::state() const {
  if (!closing_ && uv_is_active(reinterpret_cast<const uv_handle_t*>(&handle_)) != 0) return State::awake;
  return now_ns() < restUntilNs_ ? State::resting : State::asleep;
}

// Right before the loop would sleep in its epoll: that descriptor itself says when there is something for it to wake up for. A handle that is new in this
// turn is not in there yet, and waits for the end of the spinning.
void LoopSpin::before_sleep() {
  const int sleepMs = uv_backend_timeout(loop_);
  if (sleepMs == 0) return;
  int64_t now = now_ns();
  const int64_t until = sleepMs < 0 ? untilNs_ : std::min(untilNs_, now + sleepMs * kNsAMs);
  pollfd loop{.fd = uv_backend_fd(loop_), .events = POLLIN, .revents = 0};
  while (now < until) {
    if (::poll(&loop, 1, 0) != 0) return;
    // Whoever else can run on this core goes first: the guest above all.
    sched_yield();
    const int64_t after = now_ns();
    if (after - now > kPutAsideNs) {
      restUntilNs_ = after + kRestTimes * (after - now);
      stop();
      return;
    }
    now = after;
  }
  if (now >= untilNs_) stop();
}

void LoopSpin::close() {
  if (closing_) return;
  closing_ = true;
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_), [](uv_handle_t* handle) {
    auto* self = static_cast<LoopSpin*>(handle->data);
    // Node waits for this before it lets the environment's loop go.
    if (self->hook_ != nullptr) napi_remove_async_cleanup_hook(self->hook_);
    self->self_.reset();
  });
}

void LoopSpin::on_teardown(napi_async_cleanup_hook_handle, void* data) { static_cast<LoopSpin*>(data)->close(); }

namespace {

class LoopSpinHandle : public Napi::ObjectWrap<LoopSpinHandle> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "LoopSpin",
                       {InstanceMethod("touch", &LoopSpinHandle::touch), InstanceMethod("stop", &LoopSpinHandle::stop),
                        InstanceMethod("state", &LoopSpinHandle::state), InstanceMethod("close", &LoopSpinHandle::close)});
  }

  // (forUs)
  explicit LoopSpinHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LoopSpinHandle>(info) {
    Args args(info);
    const auto forUs = static_cast<int64_t>(args.whole(0, "forUs", UINT32_MAX));
    if (args) spin_ = LoopSpin::create(info.Env(), forUs * 1000);
  }
  ~LoopSpinHandle() override {
    if (spin_ != nullptr) spin_->close();
  }

 private:
  void touch(const Napi::CallbackInfo&) { spin_->touch(); }
  void stop(const Napi::CallbackInfo&) { spin_->stop(); }
  Napi::Value state(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), static_cast<int>(spin_->state())); }
  void close(const Napi::CallbackInfo&) { spin_->close(); }

  std::shared_ptr<LoopSpin> spin_;
};

}  // namespace

void init_loop_spin(Napi::Env env, Napi::Object exports) { exports.Set("LoopSpin", LoopSpinHandle::define(env)); }

}  // namespace pagewake
