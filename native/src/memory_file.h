// The JavaScript class around a memory file: memfd, shared memory file, snapshot file, guest_memfd.
#pragma once

#include <napi.h>

#include "args.h"
#include "file_calls.h"

namespace pagewake {

class MemoryFile : public Napi::ObjectWrap<MemoryFile> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit MemoryFile(const Napi::CallbackInfo& info);

 private:
  static Napi::Value create_memfd(const Napi::CallbackInfo& info);
  static Napi::Value open(const Napi::CallbackInfo& info);
  static Napi::Value create_guest_memfd(const Napi::CallbackInfo& info);

  Napi::Value fd(const Napi::CallbackInfo& info);
  Napi::Value size_bytes(const Napi::CallbackInfo& info);
  Napi::Value kind(const Napi::CallbackInfo& info);
  Napi::Value writable(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value write_runs(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value data_runs(const Napi::CallbackInfo& info);
  Napi::Value punch(const Napi::CallbackInfo& info);
  Napi::Value store(const Napi::CallbackInfo& info);
  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value find_holes(const Napi::CallbackInfo& info);
  Napi::Value still_holes(const Napi::CallbackInfo& info);
  Napi::Value duplicate(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  bool require_open(const Napi::CallbackInfo& info, const char* call);
  bool require_inside(const Napi::CallbackInfo& info, uint64_t offset, uint64_t length);
  bool require_inside_now(const Napi::CallbackInfo& info, uint64_t offset, uint64_t length);
  template <class Transfer>
  Napi::Value through_mapping(const Napi::CallbackInfo& info, Call call, Transfer transfer);

  UniqueFd fd_;
  UniqueFd vm_;  // of a guest_memfd made here: the kernel lets go of its pages with the machine
  uint64_t knownSizeBytes_ = 0;
  file::Mapping mapping_;
};

}  // namespace pagewake
