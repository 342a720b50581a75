// LZ4 between buffers of the caller. An npm package would make a buffer of its own for every call: memory outside the heap, for which the
// engine goes through all of its heap again and again (docs/performance.md).
#include <lz4.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "addon.h"
#include "args.h"

namespace pagewake {

namespace {

// In front of the block: how long its content is, little-endian.
constexpr size_t kSizeBytes = 4;

// (bytes, offset, length, into, at, room) -> bytes written: the size of the content and one block; 0 where that takes more than `room`
Napi::Value lz4_compress(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> from = args.slice(0, "bytes");
  const std::span<uint8_t> into = args.slice(3, "into");
  args.require(from.size() <= LZ4_MAX_INPUT_SIZE, "length is more than LZ4 takes");
  if (!args) return info.Env().Undefined();
  if (into.size() <= kSizeBytes) return Napi::Number::New(info.Env(), 0);
  const auto length = static_cast<uint32_t>(from.size());
  const int written = LZ4_compress_default(reinterpret_cast<const char*>(from.data()), reinterpret_cast<char*>(into.data() + kSizeBytes),
                                           static_cast<int>(length), static_cast<int>(std::min<size_t>(into.size() - kSizeBytes, INT32_MAX)));
  if (written <= 0) return Napi::Number::New(info.Env(), 0);
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
  std::memcpy(into.data(), &length, kSizeBytes);
  return Napi::Number::New(info.Env(), static_cast<double>(written) + kSizeBytes);
}

// (bytes, offset, length, into, at, room) -> whether it is a block whose content fills exactly `room`
Napi::Value lz4_decompress(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::span<uint8_t> from = args.slice(0, "bytes");
  const std::span<uint8_t> into = args.slice(3, "into");
  args.require(from.size() <= INT32_MAX && into.size() <= INT32_MAX, "length is more than LZ4 takes");
  if (!args) return info.Env().Undefined();
  uint32_t claimed = 0;
  if (from.size() > kSizeBytes) std::memcpy(&claimed, from.data(), kSizeBytes);
  if (from.size() <= kSizeBytes || claimed != into.size()) return Napi::Boolean::New(info.Env(), false);
  const int found = LZ4_decompress_safe(reinterpret_cast<const char*>(from.data() + kSizeBytes), reinterpret_cast<char*>(into.data()),
                                        static_cast<int>(from.size() - kSizeBytes), static_cast<int>(into.size()));
  return Napi::Boolean::New(info.Env(), found >= 0 && static_cast<size_t>(found) == into.size());
}

}  // namespace

void init_lz4(Napi::Env env, Napi::Object exports) {
  exports.Set("lz4Compress", Napi::Function::New(env, lz4_compress, "lz4Compress"));
  exports.Set("lz4Decompress", Napi::Function::New(env, lz4_decompress, "lz4Decompress"));
}

}  // namespace pagewake
