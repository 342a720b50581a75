// Looking for pages that hold only zeros, off the JavaScript thread.
#pragma once

#include <napi.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "outcome.h"
#include "runs.h"

namespace pagewake {

struct ScanResult {
  RunList zeros;  // bytes from the start of the scan
  int error = 0;  // an errno, and what it was about
  const char* syscall = "";
  std::string detail;

  void fail(int error, const char* syscall, std::string detail);
};

// Reads [first, first + length) piece by piece and notes its zero pages. False where reading failed (`result` says why).
class PageScanner {
 public:
  using Read = std::function<Outcome(std::span<uint8_t> into, uint64_t offset)>;

  PageScanner(uint64_t pageSizeBytes, const char* syscall, Read read, ScanResult& result);
  bool scan(uint64_t first, uint64_t length);
  void zeros(uint64_t first, uint64_t length) { result_.zeros.add(first, length); }

 private:
  const uint64_t pageSizeBytes_;
  const char* const syscall_;
  const Read read_;
  ScanResult& result_;
  std::vector<uint8_t> buffer_;
};

// Runs `work` on a thread of libuv's pool; a promise of the runs as pairs, rejected with a NativeError.
Napi::Value run_scan(Napi::Env env, std::function<void(ScanResult&)> work);

}  // namespace pagewake
