// Keeps an event loop awake for a moment instead of having it sleep: what comes next is then read at once and not after the kernel has
// woken a thread, which on a virtual machine takes longer than serving a fault does.
#pragma once

#include <napi.h>
#include <uv.h>

#include <cstdint>
#include <memory>

namespace pagewake {

class LoopSpin : public std::enable_shared_from_this<LoopSpin> {
 public:
  enum class State : uint8_t { asleep = 0, awake = 1, resting = 2 };

  // Null with a JavaScript exception pending where the environment has no loop. `forNs`: how long from a touch on.
  static std::shared_ptr<LoopSpin> create(Napi::Env env, int64_t forNs);

  void touch();
  // The loop sleeps as any other, until the next touch.
  void stop();
  State state() const;
  // Idempotent.
  void close();

 private:
  LoopSpin(uv_loop_t* loop, int64_t forNs) : loop_(loop), forNs_(forNs) {}
  static void on_teardown(napi_async_cleanup_hook_handle hook, void* self);
  void before_sleep();

  uv_loop_t* loop_;
  int64_t forNs_;
  int64_t untilNs_ = 0;
  int64_t restUntilNs_ = 0;
  uv_prepare_t handle_{};
  napi_async_cleanup_hook_handle hook_ = nullptr;
  std::shared_ptr<LoopSpin> self_;  // held by the loop from create() until its close callback
  bool closing_ = false;
};

}  // namespace pagewake
