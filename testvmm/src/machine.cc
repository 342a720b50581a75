#include "machine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <thread>

#include "events.h"
#include "failure.h"

namespace testvmm {
namespace {
constexpr long long kPauseBudgetNs = 10'000'000'000;
constexpr int kVerifyStallBudgetSeconds = 30;
constexpr int kMadvPopulateWrite = 23; // MADV_POPULATE_WRITE, younger than some headers
} // namespace

Machine::Machine(const VmConfig &config) : config_(config), layout_(layoutOf(config)) {
  build(nullptr);
  boot_.writeCode();
  fillAtStart();
}

Machine::Machine(const VmConfig &config, const SavedState &state, std::shared_ptr<const UserfaultBitmap> bitmap)
    : config_(config), layout_(layoutOf(config)), bitmap_(std::move(bitmap)) {
  build(&state);
  restore(state);
}

void Machine::build(const SavedState *state) {
  if (config_.kvm) kvm_ = std::make_unique<KvmVm>();
  memory_ = std::make_unique<GuestMemory>(config_, layout_, kvm_ ? kvm_->vm() : -1);
  boot_.writePageTables(layout_);
  if (kvm_) kvm_->mapMemory(boot_, *memory_, layout_, bitmap_.get());
  givenBack_.assign(layout_.balloon.pages * layout_.regions, false);
  const uint64_t count = config_.vcpus + (layout_.io.pages > 0 ? 1 : 0);
  WorkerObserver &observer = *this;
  for (uint64_t i = 0; i < count; i++) {
    const bool io = i == config_.vcpus;
    GuestContext &context = boot_.context(i);
    initialiseContext(context, config_, layout_, i);
    if (kvm_ && !io) {
      auto vcpu = std::make_unique<KvmVcpu>(*kvm_, i, context, config_.vcpuRate, observer);
      if (state == nullptr) writeRegisters(vcpu->fd(), initialRegisters(vcpu->fd(), i, config_.ring));
      vcpus_.push_back(vcpu.get());
      workers_.push_back(std::move(vcpu));
    } else {
      const std::string name = io ? "io" : text("vcpu%d", static_cast<int>(i));
      workers_.push_back(
          std::make_unique<ThreadWorker>(name, context, io ? config_.ioRate : config_.vcpuRate, observer));
    }
    workers_.back()->start();
  }
  if (state == nullptr)
    for (uint64_t i = 0; i < count; i++) adoptContext(boot_.context(i), i);
}

/** Puts this process's addresses and clock into a context, which may come from another. */
void Machine::adoptContext(GuestContext &context, uint64_t worker) {
  const bool vcpu = worker < vcpus_.size();
  context.heartbeatTsc = config_.heartbeatMs * (vcpu ? tscKhz(vcpus_[worker]->fd()) : ThreadWorker::hostTscKhz());
  for (uint64_t r = 0; r < layout_.regions; r++)
    context.regionBase[r] = vcpu ? layout_.gpa(r) : reinterpret_cast<uintptr_t>(memory_->region(r));
}

void Machine::restore(const SavedState &state) {
  for (const auto &[index, content] : state.bootPages)
    memcpy(boot_.data() + index * kPageBytes, content.data(), kPageBytes);
  for (const uint64_t index : state.givenBack) givenBack_[index] = true;
  for (size_t i = 0; i < vcpus_.size(); i++) writeRegisters(vcpus_[i]->fd(), state.registers[i]);
  for (size_t i = 0; i < workers_.size(); i++) {
    GuestContext &context = boot_.context(i);
    if (context.magic != kContextMagic || context.worker != i) fail("the state has no context of worker %zu", i);
    adoptContext(context, i);
    workers_[i]->continueHeartbeats(state.workers[i].lastHeartbeatNs, state.workers[i].longestGapNs);
    if (context.filled != 0) filledWorkers_++;
  }
}

void Machine::fillAtStart() {
  const GuestContext &c = boot_.context(0);
  for (uint64_t region = 0; region < layout_.regions; region++) {
    const Area &zero = layout_.zeroFill, &balloon = layout_.balloon;
    // Allocating ahead what the guest will fill anyway takes its first pass from 3.2 s to 0.6 s (1 GiB guest, nested
    // KVM). A kernel without the call (before 5.14) only makes it slower.
    madvise(memory_->page(region, layout_.workload.first), layout_.workload.pages * kPageBytes, kMadvPopulateWrite);
    memset(memory_->page(region, zero.first), 0, zero.pages * kPageBytes);
    for (uint64_t page = balloon.first; page < balloon.first + balloon.pages; page++) {
      auto *const words = reinterpret_cast<uint64_t *>(memory_->page(region, page));
      PageWords content(c.key, c.pattern, region * layout_.regionPages + page, 0);
      for (uint64_t i = 0; i < kWordsPerPage; i++) words[i] = content.next();
    }
  }
}

std::vector<pid_t> Machine::vcpuThreads() const {
  std::vector<pid_t> out;
  for (uint64_t i = 0; i < config_.vcpus; i++) out.push_back(workers_[i]->tid());
  return out;
}

void Machine::setStage2Resolver(Stage2Resolver *resolver, Stage2 how) {
  for (KvmVcpu *vcpu : vcpus_) vcpu->setResolver(resolver, how);
}

long long Machine::resume() {
  for (auto &worker : workers_) worker->resume();
  running_ = true;
  return monotonicNs();
}

long long Machine::pause() {
  if (!running_) return pausedAtNs_;
  for (auto &worker : workers_) worker->requestPause();
  const long long deadline = monotonicNs() + kPauseBudgetNs;
  std::string late;
  for (auto &worker : workers_)
    if (!worker->waitParked(deadline))
      late += text(" %s (page %lu of region %lu)", worker->name().c_str(), worker->context().touchPage,
                   worker->context().touchRegion);
  if (!late.empty()) {
    for (auto &worker : workers_) worker->resume();
    fail("not paused in 10 s, going on; waiting for a page that was not served:%s", late.c_str());
  }
  running_ = false;
  pausedAtNs_ = monotonicNs();
  return pausedAtNs_;
}

std::unique_lock<std::timed_mutex> Machine::lockBalloon() {
  std::unique_lock lock(balloonMutex_, std::chrono::seconds(kVerifyStallBudgetSeconds));
  if (!lock)
    fail("the balloon has waited %d s for a userfaultfd event to be read: is the agent alive?",
         kVerifyStallBudgetSeconds);
  return lock;
}

SavedState Machine::save() {
  if (running_) fail("the VM runs: `pause` first");
  const auto lock = lockBalloon();
  SavedState state;
  state.config = config_;
  state.pausedAtNs = pausedAtNs_;
  for (const KvmVcpu *vcpu : vcpus_) state.registers.push_back(readRegisters(vcpu->fd()));
  for (auto &worker : workers_) {
    const HeartbeatStats h = worker->heartbeats();
    state.workers.push_back({h.lastNs, h.longestGapNs});
  }
  const std::string zeros(kPageBytes, '\0');
  for (uint64_t i = 0; i < BootSlot::kBytes / kPageBytes; i++) {
    std::string content(reinterpret_cast<const char *>(boot_.data() + i * kPageBytes), kPageBytes);
    if (content != zeros) state.bootPages.emplace_back(i, std::move(content));
  }
  for (uint64_t i = 0; i < givenBack_.size(); i++)
    if (givenBack_[i]) state.givenBack.push_back(i);
  return state;
}

VerifyResult Machine::verify() {
  const bool wasRunning = running_;
  pause();
  const auto lock = lockBalloon();
  VerifyPlan plan{config_, layout_, {}, givenBack_, !trapped_};
  for (size_t i = 0; i < workers_.size(); i++) plan.contexts.push_back(boot_.context(i));
  // On its own thread: it may wait for ever for a page, and the control connection must not.
  const auto progress = std::make_shared<std::atomic<uint64_t>>(0);
  auto promise = std::make_shared<std::promise<VerifyResult>>();
  std::future<VerifyResult> done = promise->get_future();
  std::thread([plan = std::move(plan), memory = memory_.get(), progress, promise] {
    promise->set_value(verifyMemory(plan, *memory, *progress));
  }).detach();
  for (uint64_t seen = ~0ull;
       done.wait_for(std::chrono::seconds(kVerifyStallBudgetSeconds)) != std::future_status::ready;) {
    if (*progress == seen)
      fail("verification waits for page %lu of its walk: not served in %d s", seen, kVerifyStallBudgetSeconds);
    seen = *progress;
  }
  VerifyResult result = done.get();
  if (wasRunning && result.wrong == 0) resume();
  return result;
}

void Machine::poke(uint64_t offset) {
  if (offset >= config_.ramBytes) fail("poke: offset %lu is outside the image of %lu bytes", offset, config_.ramBytes);
  __atomic_fetch_xor(memory_->region(offset / layout_.regionBytes) + offset % layout_.regionBytes, 1, __ATOMIC_SEQ_CST);
}

uint64_t Machine::lowestVcpuPass() const {
  uint64_t lowest = ~0ull;
  for (uint64_t i = 0; i < config_.vcpus; i++)
    lowest = std::min<uint64_t>(lowest, workers_[i]->context().position >> kPassShift);
  return lowest;
}

PagePlace Machine::balloonPage(uint64_t index) const {
  return {index / layout_.balloon.pages, layout_.balloon.first + index % layout_.balloon.pages};
}

bool Machine::giveBackBalloonPage(uint64_t index) {
  const std::lock_guard lock(balloonMutex_);
  if (givenBack_[index]) return false;
  givenBack_[index] = true;
  const PagePlace at = balloonPage(index);
  std::unique_lock last(lastMutex_);
  if (lastGivenBack_.size() == 2) lastGivenBack_.erase(lastGivenBack_.begin());
  lastGivenBack_.push_back(at);
  last.unlock();
  memory_->giveBack(at.region, at.page);
  return true;
}

std::vector<PagePlace> Machine::lastGivenBack() {
  const std::lock_guard lock(lastMutex_);
  return lastGivenBack_;
}

void Machine::onFilled(Worker &) {
  if (++filledWorkers_ == workers_.size())
    events::print(JsonObject().add("event", "filled").add("at_ns", monotonicNs()));
}

void Machine::onWrongPage(Worker &worker) {
  volatile GuestContext &c = worker.context();
  reportWrong({worker.name(), c.wrongRegion, c.wrongPage, c.wrongWord, c.wrongExpected, c.wrongFound, c.wrongVersion});
  events::exitNow(exit_code::wrongPage);
}

void Machine::reportWrong(const WrongPage &wrong) const {
  const GuestContext &c = boot_.context(0);
  reportWrongPage(wrong, layout_, *memory_, c.key, c.pattern);
}

std::string Machine::statsJson() const {
  JsonArray vcpus;
  JsonObject out;
  uint64_t wrong = 0, stage2Exits = 0;
  std::string io = "null";
  for (size_t i = 0; i < workers_.size(); i++) {
    Worker &worker = *workers_[i];
    volatile GuestContext &c = worker.context();
    const HeartbeatStats h = worker.heartbeats();
    const long long sinceNs = h.lastNs == 0 ? 0 : monotonicNs() - h.lastNs;
    JsonObject one;
    one.add("vcpu", c.worker).add("tid", worker.tid()).add("work", c.work).add("pass", c.position >> kPassShift);
    one.add("filled", c.filled != 0)
        .add("zero_reads", c.zeroReads)
        .add("wrong", c.wrong)
        .add("heartbeats", c.heartbeats);
    one.addMs("since_heartbeat_ms", sinceNs)
        .addMs("longest_gap_ms", h.longestGapNs)
        .addMs("longest_gap_since_load_ms", h.longestGapSinceLoadNs);
    if (h.moveGapNs >= 0) one.addMs("move_gap_ms", h.moveGapNs);
    wrong += c.wrong;
    if (i < config_.vcpus)
      vcpus.raw(one.str());
    else
      io = one.str();
  }
  for (const KvmVcpu *vcpu : vcpus_) stage2Exits += vcpu->stage2Exits();
  out.add("ok", true)
      .add("state", running_ ? "running" : "paused")
      .add("kvm", config_.kvm)
      .add("filled", filled())
      .add("wrong", wrong);
  out.add("stage2_exits", stage2Exits).raw("vcpus", vcpus.str()).raw("io", io);
  return out.str();
}

} // namespace testvmm
