#include "ledger_handle.h"

#include <cerrno>

#include "addon.h"
#include "args.h"
#include "handed_over.h"
#include "ledger_registry.h"

namespace pagewake {

namespace {

constexpr uint64_t kMaxPages = uint64_t{1} << 32;  // a page number is a uint32 on the wire
constexpr uint64_t kMaxRunPages = (uint64_t{1} << 20) - 1;

uint64_t page_argument(Args& args, size_t index, const Ledger& ledger) {
  return args.whole(index, "page", ledger.page_count() - 1);
}

// Arguments `index`, +1: a run within the ledger.
PageRun run_arguments(Args& args, size_t index, const Ledger& ledger) {
  const PageRun run{args.whole(index, "first"), args.whole(index + 1, "count")};
  if (args && (run.first > ledger.page_count() || run.count > ledger.page_count() - run.first)) {
    args.require(false, ("pages " + std::to_string(run.first) + " to " + std::to_string(run.first + run.count) +
                         " are not within the ledger's " + std::to_string(ledger.page_count()))
                            .c_str());
  }
  return run;
}

}  // namespace

Napi::Function LedgerHandle::define(Napi::Env env) {
  using L = LedgerHandle;
  return DefineClass(
      env, "PageLedger",
      {StaticMethod("create", &L::create), StaticMethod("open", &L::open), InstanceMethod("id", &L::id), InstanceMethod("pageCount", &L::page_count),
       InstanceMethod("setZero", &L::set_zero), InstanceMethod("fault", &L::fault), InstanceMethod("claimRun", &L::claim_run),
       InstanceMethod("installed", &L::installed), InstanceMethod("foundZero", &L::found_zero),
       InstanceMethod("resolved", &L::resolved), InstanceMethod("release", &L::release),
       InstanceMethod("remove", &L::remove), InstanceMethod("firstNotRequested", &L::first_not_requested),
       InstanceMethod("state", &L::state), InstanceMethod("counts", &L::counts), InstanceMethod("isWhole", &L::is_whole),
       InstanceMethod("waiters", &L::waiters), InstanceMethod("nextMissing", &L::next_missing),
       InstanceMethod("lockShared", &L::lock_shared), InstanceMethod("unlockShared", &L::unlock_shared),
       InstanceMethod("lockExclusive", &L::lock_exclusive), InstanceMethod("unlockExclusive", &L::unlock_exclusive),
       InstanceMethod("recover", &L::recover), InstanceMethod("stage", &L::stage), InstanceMethod("setStage", &L::set_stage),
       InstanceMethod("diedReading", &L::died_reading), InstanceMethod("close", &L::close)});
}

// (ledger): a handle of a ledger that exists: an External of create(), or the number of one.
LedgerHandle::LedgerHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LedgerHandle>(info) {
  if (!kept_by_javascript(*this)) return;
  if (info[0].IsExternal()) {
    ledger_ = std::move(*info[0].As<Napi::External<std::shared_ptr<Ledger>>>().Data());
    if (require_open(info) == nullptr) return;
    id_ = ledgers::add(ledger_);
    return;
  }
  Args args(info);
  id_ = static_cast<uint32_t>(args.whole(0, "id", UINT32_MAX));
  if (!args) return;
  ledger_ = ledgers::find(id_);
  if (ledger_ == nullptr) {
    throw_native(info.Env(), ENOENT, "PageLedger", "there is no ledger " + std::to_string(id_) + ": its last handle is closed");
  }
}

// (pageCount, path or "") -> External
Napi::Value LedgerHandle::create(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint64_t pageCount = args.whole(0, "pageCount", kMaxPages);
  args.require(pageCount > 0, "pageCount must be at least 1");
  const std::string path = args.text(1, "path");
  if (!args) return info.Env().Undefined();
  std::shared_ptr<Ledger> ledger = Ledger::create(pageCount, path);
  if (ledger == nullptr) {
    throw_native(info.Env(), errno, "PageLedger", std::to_string(pageCount / 2) + " bytes" + (path.empty() ? "" : " in " + path));
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(ledger));
}

// (path) -> External
Napi::Value LedgerHandle::open(const Napi::CallbackInfo& info) {
  Args args(info);
  const std::string path = args.text(0, "path");
  if (!args) return info.Env().Undefined();
  std::shared_ptr<Ledger> ledger = Ledger::open(path);
  if (ledger == nullptr) {
    throw_native(info.Env(), errno, "PageLedger", path + (errno == EINVAL ? " is no ledger of this build, or not all of one" : ""));
    return info.Env().Undefined();
  }
  return handed_over(info.Env(), std::move(ledger));
}

Ledger* LedgerHandle::require_open(const Napi::CallbackInfo& info) {
  if (ledger_ == nullptr) throw_native(info.Env(), EBADF, "PageLedger", "this ledger is closed");
  return ledger_.get();
}

Napi::Value LedgerHandle::id(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), id_); }

Napi::Value LedgerHandle::page_count(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<double>(ledger->page_count()));
}

Napi::Value LedgerHandle::set_zero(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const PageRun run = run_arguments(args, 0, *ledger);
  if (!args) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<double>(ledger->set_zero(run.first, run.count)));
}

// (page) -> the state in which the fault found it
Napi::Value LedgerHandle::fault(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const uint64_t page = page_argument(args, 0, *ledger);
  if (!args) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<int>(ledger->fault(page)));
}

// (from, end, maxPages) -> first * 2^20 + count, or -1
Napi::Value LedgerHandle::claim_run(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const uint64_t from = args.whole(0, "from");
  const uint64_t end = args.whole(1, "end", ledger->page_count());
  const uint64_t maxPages = args.whole(2, "maxPages", kMaxRunPages);
  if (!args) return info.Env().Undefined();
  const PageRun run = ledger->claim_run(from, end, maxPages);
  return Napi::Number::New(info.Env(), run.count == 0 ? -1.0 : static_cast<double>(run.first * (kMaxRunPages + 1) + run.count));
}

// (first, count, waiters: Uint32Array) -> how many waiters; their pages in the array
template <class Transition>
Napi::Value LedgerHandle::with_waiters(const Napi::CallbackInfo& info, Transition transition) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const PageRun run = run_arguments(args, 0, *ledger);
  const std::span<uint32_t> into = args.words(2, "waiters");
  args.require(into.size() >= run.count, "waiters must have room for every page of the run");
  if (!args) return info.Env().Undefined();
  size_t found = 0;
  transition(*ledger, run, [&](uint64_t page) { into[found++] = static_cast<uint32_t>(page); });
  return Napi::Number::New(info.Env(), static_cast<double>(found));
}

Napi::Value LedgerHandle::installed(const Napi::CallbackInfo& info) {
  return with_waiters(info, [](Ledger& ledger, PageRun run, auto waiter) { ledger.installed(run.first, run.count, waiter); });
}
Napi::Value LedgerHandle::found_zero(const Napi::CallbackInfo& info) {
  return with_waiters(info, [](Ledger& ledger, PageRun run, auto waiter) { ledger.found_zero(run.first, run.count, waiter); });
}
Napi::Value LedgerHandle::release(const Napi::CallbackInfo& info) {
  return with_waiters(info, [](Ledger& ledger, PageRun run, auto waiter) { ledger.release(run.first, run.count, waiter); });
}
Napi::Value LedgerHandle::remove(const Napi::CallbackInfo& info) {
  return with_waiters(info, [](Ledger& ledger, PageRun run, auto waiter) { ledger.remove(run.first, run.count, waiter); });
}

Napi::Value LedgerHandle::resolved(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const uint64_t page = page_argument(args, 0, *ledger);
  if (!args) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), ledger->resolved(page));
}

// (first, count) -> page, or -1 where all are requested
Napi::Value LedgerHandle::first_not_requested(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const PageRun run = run_arguments(args, 0, *ledger);
  if (!args) return info.Env().Undefined();
  const uint64_t page = ledger->first_not_requested(run.first, run.count);
  return Napi::Number::New(info.Env(), page == run.first + run.count ? -1.0 : static_cast<double>(page));
}

// (first, count, seen: a number of Ledger::Seen) -> how many changed
Napi::Value LedgerHandle::recover(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const PageRun run = run_arguments(args, 0, *ledger);
  const auto seen = static_cast<Ledger::Seen>(args.whole(2, "seen", static_cast<uint64_t>(Ledger::Seen::unknown)));
  if (!args) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<double>(ledger->recover(run.first, run.count, seen)));
}

Napi::Value LedgerHandle::stage(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), ledger->stage());
}

void LedgerHandle::set_stage(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return;
  Args args(info);
  const uint64_t stage = args.whole(0, "stage", UINT32_MAX);
  if (args) ledger->set_stage(static_cast<uint32_t>(stage));
}

Napi::Value LedgerHandle::died_reading(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), ledger->died_reading());
}

Napi::Value LedgerHandle::state(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const uint64_t page = page_argument(args, 0, *ledger);
  if (!args) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<int>(ledger->state(page)));
}

// (into: Float64Array of 5): by state number
Napi::Value LedgerHandle::counts(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const std::span<double> into = args.doubles(0, "into");
  args.require(into.size() >= kPageStates, "into must have room for a number a state");
  if (!args) return info.Env().Undefined();
  const auto counts = ledger->counts();
  for (size_t state = 0; state < counts.size(); state++) into[state] = static_cast<double>(counts[state]);
  return info.Env().Undefined();
}

Napi::Value LedgerHandle::is_whole(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), ledger->whole());
}

// (into: Uint32Array, from) -> how many
Napi::Value LedgerHandle::waiters(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const std::span<uint32_t> into = args.words(0, "into");
  const uint64_t from = args.whole(1, "from", ledger->page_count());
  if (!args) return info.Env().Undefined();
  size_t found = 0;
  if (!into.empty()) {
    ledger->waiters(from, [&](uint64_t page) {
      into[found++] = static_cast<uint32_t>(page);
      return found < into.size();
    });
  }
  return Napi::Number::New(info.Env(), static_cast<double>(found));
}

// (from, end) -> page, or -1
Napi::Value LedgerHandle::next_missing(const Napi::CallbackInfo& info) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return info.Env().Undefined();
  Args args(info);
  const uint64_t from = args.whole(0, "from");
  const uint64_t end = args.whole(1, "end", ledger->page_count());
  if (!args) return info.Env().Undefined();
  const uint64_t page = ledger->next_missing(from, end);
  return Napi::Number::New(info.Env(), page >= end ? -1.0 : static_cast<double>(page));
}

void LedgerHandle::lock(const Napi::CallbackInfo& info, Held wanted) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return;
  // The lock does not nest: asking twice would wait for oneself, for ever.
  if (held_ != Held::nothing) return throw_native(info.Env(), EDEADLK, "PageLedger", "this handle holds the install lock");
  InstallLock& lock = ledger->install_lock();
  const int error = wanted == Held::shared ? lock.lock_shared() : lock.lock_exclusive();
  if (error != 0) return throw_native(info.Env(), error, "PageLedger", "this thread holds the install lock");
  held_ = wanted;
}

void LedgerHandle::unlock(const Napi::CallbackInfo& info, Held wanted) {
  Ledger* ledger = require_open(info);
  if (ledger == nullptr) return;
  if (held_ != wanted) return throw_native(info.Env(), EPERM, "PageLedger", "this handle does not hold the install lock that way");
  held_ = Held::nothing;
  ledger->install_lock().unlock();
}

void LedgerHandle::lock_shared(const Napi::CallbackInfo& info) { lock(info, Held::shared); }
void LedgerHandle::unlock_shared(const Napi::CallbackInfo& info) { unlock(info, Held::shared); }
void LedgerHandle::lock_exclusive(const Napi::CallbackInfo& info) { lock(info, Held::exclusive); }
void LedgerHandle::unlock_exclusive(const Napi::CallbackInfo& info) { unlock(info, Held::exclusive); }

void LedgerHandle::close(const Napi::CallbackInfo&) { drop(); }

void LedgerHandle::drop() {
  if (ledger_ == nullptr) return;
  // A worker that ends with the lock held must not stop the others for ever. Runs on the thread that took it.
  if (held_ != Held::nothing) ledger_->install_lock().unlock();
  held_ = Held::nothing;
  ledger_.reset();
  ledgers::sweep();
}

void init_ledger(Napi::Env env, Napi::Object exports) { exports.Set("PageLedger", LedgerHandle::define(env)); }

}  // namespace pagewake
