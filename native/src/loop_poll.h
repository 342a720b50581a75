// uv_poll on a descriptor, with the two things it does not do by itself: it outlives its owner until libuv has let go of it, and
// it closes itself where the environment (a worker) is torn down first.
#pragma once

#include <napi.h>
#include <uv.h>

#include <functional>
#include <memory>

namespace pagewake {

class LoopPoll : public std::enable_shared_from_this<LoopPoll> {
 public:
  // `status` is 0 or a negative errno of libuv; `events` are UV_READABLE | UV_WRITABLE.
  using OnEvents = std::function<void(int status, int events)>;

  // Null with a JavaScript exception pending where the loop refuses the descriptor. Sets it non-blocking.
  static std::shared_ptr<LoopPoll> create(Napi::Env env, int fd, OnEvents onEvents);

  // 0 or a negative errno. `events` 0 stops.
  int watch(int events);
  // Idempotent; the descriptor may be closed right after. No callback comes any more.
  void close();
  bool closed() const { return closing_; }

 private:
  LoopPoll(Napi::Env env, OnEvents onEvents) : env_(env), onEvents_(std::move(onEvents)) {}
  static void on_teardown(napi_async_cleanup_hook_handle hook, void* self);

  Napi::Env env_;
  OnEvents onEvents_;
  uv_poll_t handle_{};
  napi_async_cleanup_hook_handle hook_ = nullptr;
  std::shared_ptr<LoopPoll> self_;  // held by the loop from create() until its close callback
  bool closing_ = false;
};

}  // namespace pagewake
