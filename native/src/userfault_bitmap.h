// A KVM userfault bitmap: one bit a page of a memory file, in memory that KVM, the VMM and the agent share. A set bit makes a stage-2 fault exit to the VMM.
#pragma once

#include <napi.h>

#include <cstdint>
#include <span>
#include <string>

#include "unique_fd.h"

namespace pagewake {

// The mapping, without JavaScript. Any number of threads and processes may have one of the same file.
class BitmapMapping {
 public:
  struct Refusal {
    int error;
    const char* call;
    std::string detail;
  };

  BitmapMapping() = default;
  BitmapMapping(const BitmapMapping&) = delete;
  BitmapMapping& operator=(const BitmapMapping&) = delete;
  ~BitmapMapping() { unmap(); }

  // Error 0, or why it is refused. The mapping needs the descriptor no more.
  Refusal map(int fd, uint64_t pages);
  void unmap();
  bool mapped() const { return words_ != nullptr; }
  uint64_t pages() const { return pages_; }

  // What was written to these pages before is seen by whoever sees their bits clear. Within pages().
  void clear(uint64_t first, uint64_t count);
  bool is_set(uint64_t page) const;
  uint64_t count_set() const;

 private:
  uint64_t word_count() const { return (pages_ + 63) / 64; }

  uint64_t* words_ = nullptr;
  uint64_t pages_ = 0;
};

// The JavaScript class around one.
class UserfaultBitmap : public Napi::ObjectWrap<UserfaultBitmap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit UserfaultBitmap(const Napi::CallbackInfo& info);

  // Null where `value` is no such object.
  static UserfaultBitmap* of(const Napi::Value& value);
  BitmapMapping& mapping() { return mapping_; }

 private:
  Napi::Value page_count(const Napi::CallbackInfo& info);
  void clear(const Napi::CallbackInfo& info);
  Napi::Value is_set(const Napi::CallbackInfo& info);
  Napi::Value count_set(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  bool require_open(const Napi::CallbackInfo& info);

  BitmapMapping mapping_;
};

}  // namespace pagewake
