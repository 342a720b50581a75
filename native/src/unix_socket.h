// The JavaScript class around one Unix stream socket, listening or connected. Descriptors cross with the data; queues, errors to
// callbacks and the order of things are ts/unix-socket.ts.
#pragma once

#include <napi.h>
#include <sys/types.h>

#include <memory>
#include <string>

#include "loop_poll.h"
#include "unique_fd.h"

namespace pagewake {

class UnixSocket : public Napi::ObjectWrap<UnixSocket> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit UnixSocket(const Napi::CallbackInfo& info);
  ~UnixSocket() override { shut(); }

 private:
  static Napi::Value listen(const Napi::CallbackInfo& info);
  static Napi::Value connect(const Napi::CallbackInfo& info);

  Napi::Value fd(const Napi::CallbackInfo& info);
  Napi::Value accept(const Napi::CallbackInfo& info);
  Napi::Value receive(const Napi::CallbackInfo& info);
  Napi::Value send(const Napi::CallbackInfo& info);
  Napi::Value peer(const Napi::CallbackInfo& info);
  void watch(const Napi::CallbackInfo& info);
  void unwatch(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  bool require_open(const Napi::CallbackInfo& info, const char* call);
  void on_ready(int status, int events);
  void end_watch();
  void shut();

  UniqueFd fd_;
  std::shared_ptr<LoopPoll> poll_;
  std::unique_ptr<Napi::AsyncContext> context_;
  Napi::FunctionReference onReady_;
};

}  // namespace pagewake
