#include "addon.h"

#include <uv.h>

#include "args.h"
#include "outcome.h"

namespace pagewake {

Napi::Value native_error(Napi::Env env, int error, const char* syscall, const std::string& detail) {
  char reason[128];
  uv_strerror_r(uv_translate_sys_error(error), reason, sizeof reason);
  const std::string code = errno_name(error);
  const std::string message = std::string(syscall) + ": " + code + ": " + reason + (detail.empty() ? "" : " (" + detail + ")");
  const auto* addon = env.GetInstanceData<Addon>();
  if (addon != nullptr && !addon->errorClass.IsEmpty()) {
    return addon->errorClass.New(
        {Napi::String::New(env, code), Napi::String::New(env, syscall), Napi::String::New(env, message)});
  }
  return Napi::Error::New(env, message).Value();
}

void throw_native(Napi::Env env, int error, const char* syscall, const std::string& detail) {
  const Napi::Value value = native_error(env, error, syscall, detail);
  // Empty where JavaScript cannot run any more: the environment is being torn down.
  if (!value.IsEmpty()) napi_throw(env, value);
}

void call_from_loop(Napi::Env env, const Napi::FunctionReference& callback, napi_async_context context,
                    std::initializer_list<napi_value> arguments) {
  napi_value result = nullptr;
  const napi_value function = callback.Value();
  const napi_value receiver = env.Global();
  if (napi_make_callback(env, context, receiver, function, arguments.size(), arguments.begin(), &result) == napi_ok) return;
  bool pending = false;
  napi_value thrown = nullptr;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(env, &thrown) == napi_ok) {
    napi_fatal_exception(env, thrown);
  }
}

namespace {

void set_error_class(const Napi::CallbackInfo& info) {
  Args args(info);
  const Napi::Function errorClass = args.function(0, "errorClass");
  if (args) info.Env().GetInstanceData<Addon>()->errorClass = Napi::Persistent(errorClass);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Addon());
  exports.Set("setErrorClass", Napi::Function::New(env, set_error_class, "setErrorClass"));
  init_uffd(env, exports);
  init_memory_file(env, exports);
  init_process_memory(env, exports);
  init_unix_socket(env, exports);
  init_ledger(env, exports);
  init_bytes(env, exports);
  init_lz4(env, exports);
  init_loop_spin(env, exports);
  init_userfault_bitmap(env, exports);
  init_probe(env, exports);
  return exports;
}

}  // namespace
}  // namespace pagewake

static Napi::Object initialize(Napi::Env env, Napi::Object exports) { return pagewake::init(env, exports); }
NODE_API_MODULE(pagewake_native, initialize)
