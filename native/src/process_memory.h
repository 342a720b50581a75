// The JavaScript class around another process's memory.
#pragma once

#include <napi.h>
#include <sys/types.h>

#include <memory>
#include <span>

#include "outcome.h"
#include "unique_fd.h"

namespace pagewake {

// A process, and the certainty that its number still means it.
struct TargetProcess {
  pid_t pid;
  UniqueFd pidfd;

  bool alive() const;
  // Never bytes of a process that got the same number later.
  Outcome read(std::span<uint8_t> into, uint64_t address) const;
};

class ProcessMemory : public Napi::ObjectWrap<ProcessMemory> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ProcessMemory(const Napi::CallbackInfo& info);

 private:
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value find_holes(const Napi::CallbackInfo& info);
  Napi::Value still_holes(const Napi::CallbackInfo& info);
  Napi::Value alive(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);
  bool require_open(const Napi::CallbackInfo& info, const char* call);

  std::shared_ptr<const TargetProcess> process_;  // a running search holds it too
};

}  // namespace pagewake
