// The JavaScript class around a shared ledger: one handle an environment and a hold on the ledger.
#pragma once

#include <napi.h>

#include <memory>

#include "ledger.h"

namespace pagewake {

class LedgerHandle : public Napi::ObjectWrap<LedgerHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit LedgerHandle(const Napi::CallbackInfo& info);
  ~LedgerHandle() override { drop(); }

 private:
  static Napi::Value create(const Napi::CallbackInfo& info);
  static Napi::Value open(const Napi::CallbackInfo& info);

  Napi::Value id(const Napi::CallbackInfo& info);
  Napi::Value page_count(const Napi::CallbackInfo& info);
  Napi::Value set_zero(const Napi::CallbackInfo& info);
  Napi::Value fault(const Napi::CallbackInfo& info);
  Napi::Value claim_run(const Napi::CallbackInfo& info);
  Napi::Value installed(const Napi::CallbackInfo& info);
  Napi::Value resolved(const Napi::CallbackInfo& info);
  Napi::Value found_zero(const Napi::CallbackInfo& info);
  Napi::Value release(const Napi::CallbackInfo& info);
  Napi::Value remove(const Napi::CallbackInfo& info);
  Napi::Value first_not_requested(const Napi::CallbackInfo& info);
  Napi::Value state(const Napi::CallbackInfo& info);
  Napi::Value counts(const Napi::CallbackInfo& info);
  Napi::Value is_whole(const Napi::CallbackInfo& info);
  Napi::Value waiters(const Napi::CallbackInfo& info);
  Napi::Value next_missing(const Napi::CallbackInfo& info);
  Napi::Value recover(const Napi::CallbackInfo& info);
  Napi::Value stage(const Napi::CallbackInfo& info);
  void set_stage(const Napi::CallbackInfo& info);
  Napi::Value died_reading(const Napi::CallbackInfo& info);
  void lock_shared(const Napi::CallbackInfo& info);
  void unlock_shared(const Napi::CallbackInfo& info);
  void lock_exclusive(const Napi::CallbackInfo& info);
  void unlock_exclusive(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  enum class Held { nothing, shared, exclusive };

  Ledger* require_open(const Napi::CallbackInfo& info);
  void lock(const Napi::CallbackInfo& info, Held wanted);
  void unlock(const Napi::CallbackInfo& info, Held wanted);
  template <class Transition>
  Napi::Value with_waiters(const Napi::CallbackInfo& info, Transition transition);
  void drop();

  std::shared_ptr<Ledger> ledger_;
  uint32_t id_ = 0;
  Held held_ = Held::nothing;
};

}  // namespace pagewake
