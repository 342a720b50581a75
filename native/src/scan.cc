#include "scan.h"

#include <cerrno>

#include "addon.h"
#include "zero.h"

namespace pagewake {

namespace {

// Large enough that a call's cost is lost in it, small enough to stay in the second-level cache.
constexpr uint64_t kChunkBytes = 1 << 20;

class ScanWorker : public Napi::AsyncWorker {
 public:
  ScanWorker(Napi::Env env, std::function<void(ScanResult&)> work)
      : Napi::AsyncWorker(env, "pagewake.scan"), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    work_(result_);
    work_ = nullptr;  // lets go of its descriptor as soon as it is done
  }

  void OnOK() override {
    if (result_.error != 0) {
      deferred_.Reject(native_error(Env(), result_.error, result_.syscall, result_.detail));
    } else {
      deferred_.Resolve(result_.zeros.to_array(Env()));
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::function<void(ScanResult&)> work_;
  ScanResult result_;
};

int errno_of(const Outcome& outcome) {
  switch (outcome.kind) {
    case OutcomeKind::refused:
      return outcome.error;
    case OutcomeKind::exited:
      return ESRCH;
    case OutcomeKind::noMemory:
      return ENOMEM;
    default:
      return EFAULT;
  }
}

}  // namespace

void ScanResult::fail(int failed, const char* call, std::string what) {
  error = failed;
  syscall = call;
  detail = std::move(what);
}

PageScanner::PageScanner(uint64_t pageSizeBytes, const char* syscall, Read read, ScanResult& result)
    : pageSizeBytes_(pageSizeBytes),
      syscall_(syscall),
      read_(std::move(read)),
      result_(result),
      buffer_(pageSizeBytes > kChunkBytes ? pageSizeBytes : kChunkBytes / pageSizeBytes * pageSizeBytes) {}

bool PageScanner::scan(uint64_t first, uint64_t length) {
  for (uint64_t at = first; at < first + length;) {
    const uint64_t left = first + length - at;
    const std::span<uint8_t> chunk(buffer_.data(), left < buffer_.size() ? left : buffer_.size());
    const Outcome outcome = read_(chunk, at);
    if (outcome.kind != OutcomeKind::done) {
      result_.fail(errno_of(outcome), syscall_, "byte " + std::to_string(at + outcome.bytes) + " of the scan");
      return false;
    }
    for (uint64_t page = 0; page < chunk.size(); page += pageSizeBytes_) {
      if (is_zero(chunk.data() + page, pageSizeBytes_)) zeros(at + page, pageSizeBytes_);
    }
    at += chunk.size();
  }
  return true;
}

Napi::Value run_scan(Napi::Env env, std::function<void(ScanResult&)> work) {
  auto* worker = new ScanWorker(env, std::move(work));
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace pagewake
