#include "loop_poll.h"

#include "addon.h"

namespace pagewake {

std::shared_ptr<LoopPoll> LoopPoll::create(Napi::Env env, int fd, OnEvents onEvents) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    Napi::Error::New(env, "this environment has no event loop").ThrowAsJavaScriptException();
    return nullptr;
  }
  std::shared_ptr<LoopPoll> poll(new LoopPoll(env, std::move(onEvents)));
  const int status = uv_poll_init(loop, &poll->handle_, fd);
  if (status != 0) {
    throw_native(env, -status, "uv_poll_init", "descriptor " + std::to_string(fd) + " cannot be polled");
    return nullptr;
  }
  poll->handle_.data = poll.get();
  poll->self_ = poll;
  napi_add_async_cleanup_hook(env, &LoopPoll::on_teardown, poll.get(), &poll->hook_);
  return poll;
}

int LoopPoll::watch(int events) {
  if (closing_) return UV_EBADF;
  if (events == 0) return uv_poll_stop(&handle_);
  return uv_poll_start(&handle_, events, [](uv_poll_t* handle, int status, int events) {
    // Held: the callback may close this.
    const auto self = static_cast<LoopPoll*>(handle->data)->shared_from_this();
    if (self->closing_) return;
    Napi::HandleScope scope(self->env_);
    self->onEvents_(status, events);
  });
}

void LoopPoll::close() {
  if (closing_) return;
  closing_ = true;
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_), [](uv_handle_t* handle) {
    auto* self = static_cast<LoopPoll*>(handle->data);
    // Node waits for this before it lets the environment's loop go.
    if (self->hook_ != nullptr) napi_remove_async_cleanup_hook(self->hook_);
    self->self_.reset();
  });
}

void LoopPoll::on_teardown(napi_async_cleanup_hook_handle, void* data) { static_cast<LoopPoll*>(data)->close(); }

}  // namespace pagewake
