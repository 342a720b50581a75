#include "holes.h"

#include "addon.h"
#include "args.h"

namespace pagewake {

namespace {

class HoleWorker : public Napi::AsyncWorker {
 public:
  HoleWorker(Napi::Env env, std::function<void(HoleSearch&)> work)
      : Napi::AsyncWorker(env, "pagewake.holes"), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    work_(search_);
    work_ = nullptr;  // lets go of its descriptor as soon as it is done
  }

  void OnOK() override {
    if (search_.error != 0) {
      deferred_.Reject(native_error(Env(), search_.error, search_.syscall, search_.detail));
    } else {
      deferred_.Resolve(search_.holes.to_array(Env()));
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::function<void(HoleSearch&)> work_;
  HoleSearch search_;
};

}  // namespace

void HoleSearch::look(const NextData& next, uint64_t start, uint64_t end, uint64_t pageSize) {
  for (uint64_t at = start; at < end && looksLeft > 0;) {
    looksLeft--;
    const auto data = next(at, end);
    const uint64_t hole = data ? data->first / pageSize * pageSize : end;
    if (hole > at) holes.add(at, hole - at);
    if (!data) return;
    at = (data->first + data->length + pageSize - 1) / pageSize * pageSize;
  }
}

void HoleSearch::fail(int failed, const char* call, std::string what) {
  error = failed;
  syscall = call;
  detail = std::move(what);
}

uint64_t looks_for(size_t holes) { return 2 * static_cast<uint64_t>(holes) + 64; }

bool holes_of(std::span<const double> pairs, uint64_t pageSize, std::vector<ByteRun>& holes) {
  if (pageSize == 0 || pairs.size() % 2 != 0) return false;
  uint64_t reached = 0;
  for (size_t i = 0; i < pairs.size(); i += 2) {
    if (!(pairs[i] >= 0 && pairs[i + 1] > 0 && pairs[i] + pairs[i + 1] <= static_cast<double>(kMaxWhole))) return false;
    const ByteRun hole{static_cast<uint64_t>(pairs[i]), static_cast<uint64_t>(pairs[i + 1])};
    if (hole.first < reached || hole.first % pageSize != 0 || hole.length % pageSize != 0) return false;
    reached = hole.first + hole.length;
    holes.push_back(hole);
  }
  return true;
}

Napi::Value find_holes(Napi::Env env, std::function<void(HoleSearch&)> work) {
  auto* worker = new HoleWorker(env, std::move(work));
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

Napi::Value told_holes(Napi::Env env, const HoleSearch& search) {
  if (search.error == 0) return search.holes.to_array(env);
  throw_native(env, search.error, search.syscall, search.detail);
  return env.Undefined();
}

}  // namespace pagewake
