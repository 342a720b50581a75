// Runs of bytes in ascending order, merged where they touch.
#pragma once

#include <napi.h>

#include <cstdint>
#include <vector>

namespace pagewake {

struct ByteRun {
  uint64_t first;
  uint64_t length;
};

class RunList {
 public:
  void add(uint64_t first, uint64_t length) {
    if (length == 0) return;
    if (!runs_.empty() && runs_.back().first + runs_.back().length == first) {
      runs_.back().length += length;
    } else {
      runs_.push_back({first, length});
    }
  }

  // Pairs: first byte, length.
  Napi::Float64Array to_array(Napi::Env env) const {
    Napi::Float64Array array = Napi::Float64Array::New(env, runs_.size() * 2);
    // No memory of its own where the environment is being torn down: nobody will read it either.
    for (size_t i = 0; array.Data() != nullptr && i < runs_.size(); i++) {
      array[i * 2] = static_cast<double>(runs_[i].first);
      array[i * 2 + 1] = static_cast<double>(runs_[i].length);
    }
    return array;
  }

 private:
  std::vector<ByteRun> runs_;
};

}  // namespace pagewake
