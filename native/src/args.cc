#include "args.h"

#include <cmath>
#include <cstdio>

namespace pagewake {

void Args::type_error(const char* name, const char* wanted) {
  if (ok_) Napi::TypeError::New(info_.Env(), std::string(name) + " must be " + wanted).ThrowAsJavaScriptException();
  ok_ = false;
}

void Args::range_error(const std::string& message) {
  if (ok_) Napi::RangeError::New(info_.Env(), message).ThrowAsJavaScriptException();
  ok_ = false;
}

uint64_t Args::whole(size_t index, const char* name, uint64_t max) {
  return static_cast<uint64_t>(integer(index, name, 0, static_cast<int64_t>(max)));
}

int64_t Args::integer(size_t index, const char* name, int64_t min, int64_t max) {
  double value = 0;
  if (!ok_) return 0;
  if (napi_get_value_double(info_.Env(), info_[index], &value) != napi_ok) {
    type_error(name, "a number");
    return 0;
  }
  // Written so that NaN fails too.
  if (!(value >= static_cast<double>(min) && value <= static_cast<double>(max)) || std::floor(value) != value) {
    char found[32];
    snprintf(found, sizeof found, "%.17g", value);
    range_error(std::string(name) + " must be a whole number from " + std::to_string(min) + " to " + std::to_string(max) +
                ", not " + found);
    return 0;
  }
  return static_cast<int64_t>(value);
}

GivenFd Args::given_fd(size_t index, const char* name) {
  if (!ok_ || !info_[index].IsExternal()) return {.fd = descriptor(index, name), .held = nullptr};
  auto* held = info_[index].As<Napi::External<UniqueFd>>().Data();
  return {.fd = held->get(), .held = held};
}

bool Args::flag(size_t index, const char* name) {
  bool value = false;
  if (napi_get_value_bool(info_.Env(), info_[index], &value) != napi_ok) type_error(name, "a boolean");
  return value;
}

std::string Args::text(size_t index, const char* name) {
  if (!ok_ || !info_[index].IsString()) {
    type_error(name, "a string");
    return {};
  }
  std::string value = info_[index].As<Napi::String>().Utf8Value();
  if (value.find('\0') != std::string::npos) type_error(name, "a string without NUL");
  return value;
}

Napi::Function Args::function(size_t index, const char* name) {
  if (!ok_ || !info_[index].IsFunction()) {
    type_error(name, "a function");
    return {};
  }
  return info_[index].As<Napi::Function>();
}

size_t Args::elements(size_t index, const char* name, napi_typedarray_type type, const char* typeName) {
  napi_typedarray_type found = napi_int8_array;
  size_t length = 0;
  data_ = nullptr;
  if (!ok_ || napi_get_typedarray_info(info_.Env(), info_[index], &found, &length, &data_, nullptr, nullptr) != napi_ok || found != type) {
    type_error(name, (std::string("a ") + typeName).c_str());
    return 0;
  }
  return length;
}

std::span<uint8_t> Args::slice(size_t index, const char* name) {
  const std::span<uint8_t> all = bytes(index, name);
  const uint64_t offset = whole(index + 1, "offset");
  const uint64_t length = whole(index + 2, "length");
  require_within(offset, length, all.size(), name);
  return ok_ ? all.subspan(offset, length) : std::span<uint8_t>{};
}

void Args::require_within(uint64_t offset, uint64_t length, uint64_t size, const char* what) {
  if (ok_ && (offset > size || length > size - offset)) {
    range_error(std::to_string(length) + " bytes at offset " + std::to_string(offset) + " are not within the " +
                std::to_string(size) + " bytes of " + what);
  }
}

void Args::require(bool condition, const char* otherwise) {
  if (ok_ && !condition) range_error(otherwise);
}

std::span<double> doubles_of(Napi::Env env, napi_value array) {
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, array, &type, &length, &data, nullptr, nullptr) != napi_ok || type != napi_float64_array) return {};
  return {static_cast<double*>(data), length};
}

}  // namespace pagewake
