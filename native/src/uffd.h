// The JavaScript class around one userfaultfd.
#pragma once

#include <napi.h>

#include <memory>

#include "args.h"
#include "ledger.h"
#include "loop_poll.h"
#include "outcome.h"
#include "unique_fd.h"

struct uffd_msg;

namespace pagewake {

class Uffd : public Napi::ObjectWrap<Uffd> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Uffd(const Napi::CallbackInfo& info);
  ~Uffd() override { shut(); }

 private:
  // Batches served from one wake-up of the loop before other descriptors (the replies of the source) get their turn.
  static constexpr int kBatchesPerTurn = 8;

  static Napi::Value open(const Napi::CallbackInfo& info);

  Napi::Value fd(const Napi::CallbackInfo& info);
  Napi::Value duplicate(const Napi::CallbackInfo& info);
  Napi::Value handshake(const Napi::CallbackInfo& info);
  Napi::Value register_range(const Napi::CallbackInfo& info);
  Napi::Value unregister(const Napi::CallbackInfo& info);
  Napi::Value copy(const Napi::CallbackInfo& info);
  Napi::Value copy_requested(const Napi::CallbackInfo& info);
  Napi::Value zeropage(const Napi::CallbackInfo& info);
  Napi::Value continue_pages(const Napi::CallbackInfo& info);
  Napi::Value wake(const Napi::CallbackInfo& info);
  Napi::Value poison(const Napi::CallbackInfo& info);
  Napi::Value poll(const Napi::CallbackInfo& info);
  Napi::Value drain(const Napi::CallbackInfo& info);
  void stop_polling(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  using RangeCall = Outcome (*)(int fd, uint64_t address, uint64_t length);
  Napi::Value range_call(const Napi::CallbackInfo& info, const char* name, RangeCall call);
  bool require_open(const Napi::CallbackInfo& info, const char* call);
  void on_readable(int status);
  bool read_batch();
  void end_polling();
  void shut();

  UniqueFd fd_;
  std::shared_ptr<LoopPoll> poll_;
  std::unique_ptr<Napi::AsyncContext> context_;
  Napi::Reference<Napi::Value> events_;
  Napi::FunctionReference onEvents_;
  Napi::FunctionReference onClosed_;
  Napi::FunctionReference onRemoval_;
  std::shared_ptr<Ledger> ledger_;  // whose install lock is held while reading; may be null
};

}  // namespace pagewake
