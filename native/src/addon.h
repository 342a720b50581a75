// State of one environment (the main thread or a worker), and errors for JavaScript.
#pragma once

#include <napi.h>

#include <string>

namespace pagewake {

struct Addon {
  // `NativeError` of the TypeScript face: native names an error, TypeScript makes the class.
  Napi::FunctionReference errorClass;
};

// An error with `code` ("ENOENT") and `syscall`; the message says what was tried (`detail`) and what the system answered.
Napi::Value native_error(Napi::Env env, int error, const char* syscall, const std::string& detail);
void throw_native(Napi::Env env, int error, const char* syscall, const std::string& detail);

// Calls JavaScript from the event loop (microtasks run after it). What it throws becomes an `uncaughtException`.
void call_from_loop(Napi::Env env, const Napi::FunctionReference& callback, napi_async_context context,
                    std::initializer_list<napi_value> arguments);

void init_uffd(Napi::Env env, Napi::Object exports);
void init_memory_file(Napi::Env env, Napi::Object exports);
void init_process_memory(Napi::Env env, Napi::Object exports);
void init_unix_socket(Napi::Env env, Napi::Object exports);
void init_ledger(Napi::Env env, Napi::Object exports);
void init_bytes(Napi::Env env, Napi::Object exports);
void init_lz4(Napi::Env env, Napi::Object exports);
void init_loop_spin(Napi::Env env, Napi::Object exports);
void init_userfault_bitmap(Napi::Env env, Napi::Object exports);
void init_probe(Napi::Env env, Napi::Object exports);

}  // namespace pagewake
