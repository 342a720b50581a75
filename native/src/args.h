// Arguments from JavaScript, checked. The first bad one throws (TypeError, RangeError) and turns the whole to false:
//
//   Args args(info);
//   const uint64_t address = args.whole(0, "address");
//   if (!args) return info.Env().Undefined();
#pragma once

#include <napi.h>

#include <cstdint>
#include <span>
#include <string>

#include "unique_fd.h"

namespace pagewake {

inline constexpr uint64_t kMaxWhole = (uint64_t{1} << 53) - 1;

// A descriptor that an object is to keep. Until it is taken it stays with whoever gave it: the caller, or the External of handed_over().
struct GivenFd {
  int fd = -1;
  UniqueFd* held = nullptr;

  UniqueFd take() const { return held != nullptr ? std::move(*held) : UniqueFd(fd); }
};

class Args {
 public:
  explicit Args(const Napi::CallbackInfo& info) : info_(info) {}
  explicit operator bool() const { return ok_; }

  // A whole number from 0 to `max`.
  uint64_t whole(size_t index, const char* name, uint64_t max = kMaxWhole);
  int64_t integer(size_t index, const char* name, int64_t min, int64_t max);
  int descriptor(size_t index, const char* name) { return static_cast<int>(integer(index, name, 0, INT32_MAX)); }
  // A number, or the External of a call that opened it.
  GivenFd given_fd(size_t index, const char* name);
  bool flag(size_t index, const char* name);
  std::string text(size_t index, const char* name);
  Napi::Function function(size_t index, const char* name);

  std::span<uint8_t> bytes(size_t index, const char* name) { return array<uint8_t>(index, name, napi_uint8_array, "Uint8Array"); }
  std::span<uint32_t> words(size_t index, const char* name) { return array<uint32_t>(index, name, napi_uint32_array, "Uint32Array"); }
  std::span<int32_t> integers(size_t index, const char* name) { return array<int32_t>(index, name, napi_int32_array, "Int32Array"); }
  std::span<double> doubles(size_t index, const char* name) { return array<double>(index, name, napi_float64_array, "Float64Array"); }

  // Arguments `index`, +1, +2: a Uint8Array, an offset in it and a length; the part they name.
  std::span<uint8_t> slice(size_t index, const char* name);

  // Fails with a RangeError unless [offset, offset + length) lies in [0, size).
  void require_within(uint64_t offset, uint64_t length, uint64_t size, const char* what);
  void require(bool condition, const char* otherwise);

 private:
  template <class T>
  std::span<T> array(size_t index, const char* name, napi_typedarray_type type, const char* typeName) {
    const size_t length = elements(index, name, type, typeName);
    return {static_cast<T*>(data_), length};
  }
  size_t elements(size_t index, const char* name, napi_typedarray_type type, const char* typeName);
  void type_error(const char* name, const char* wanted);
  void range_error(const std::string& message);

  const Napi::CallbackInfo& info_;
  void* data_ = nullptr;
  bool ok_ = true;
};

// The elements of a typed array that was checked before; empty once its buffer is detached.
std::span<double> doubles_of(Napi::Env env, napi_value array);

}  // namespace pagewake
