#include "destination.h"

#include <sys/mman.h>

#include "events.h"
#include "failure.h"
#include "uffd.h"

namespace testvmm {

VmConfig Destination::configFor(const Options &options, const SavedState &state) {
  VmConfig config = state.config;
  if (options.vmName) config.name = *options.vmName;
  if (options.memory)
    config.memory = *options.memory;
  else if (options.handshake == Handshake::firecracker)
    config.memory = MemoryKind::anon;
  if (config.memory != MemoryKind::memfd && config.pageBytes != kPageBytes)
    fail("2 MiB pages: only with --memory memfd on both sides");
  if (config.kvm && options.noKvm) fail("the state is of a KVM guest: it cannot go on with --no-kvm");
  if (options.stage2 != Stage2::trap && !config.kvm)
    fail("--stage2 exit: the state is of plain threads, which have no stage-2 faults");
  if (const char *const why = whyNotWith(config.memory, options)) fail("%s", why);
  if (hasBitmap(options) && (config.pageBytes != kPageBytes || layoutOf(config).regionPages % 8 != 0))
    fail("a bitmap of stage-2 faults: pages of 4096 bytes, and in each region a multiple of 8");
  return config;
}

std::shared_ptr<Machine> Destination::makeMachine(const SavedState &state) {
  const VmConfig config = configFor(options_, state);
  if (hasBitmap(options_)) bitmap_ = std::make_shared<UserfaultBitmap>(config.ramBytes / kPageBytes);
  return std::make_shared<Machine>(config, state, options_.stage2 == Stage2::userfault ? bitmap_ : nullptr);
}

Destination::Destination(const Options &options, const SavedState &state, const std::string &agentPath)
    : options_(options), machine_(makeMachine(state)) {
  if (options.balloonPages > 0) balloon_ = std::make_unique<Balloon>(*machine_, options.balloonPages);
  const bool firecracker = options.handshake != Handshake::pagewake;
  if (machine_->memory().kind() != MemoryKind::guestMemfd || options.stage2 == Stage2::userfault)
    uffd_ = registerMemory(machine_->memory(), {.minor = options.registerMinor,
                                                .userModeOnly = options.stage2 == Stage2::exit,
                                                .eventRemove = options.balloonPages > 0 || firecracker,
                                                .threadId = !firecracker});
  machine_->setTrapped(true);
  const bool secretFree = options.handshake == Handshake::secretFree;
  // The secret-free branch fills it only when the descriptors are on their way.
  if (bitmap_ && !secretFree) bitmap_->fill();
  AgentChannel::Hooks hooks{[this] { onDone(); }, [this](uint64_t offset) { onAnswered(offset); },
                            [this] { bitmap_->fill(); }};
  const AgentChannel::Manner manner{.keep = options.keepHandover,
                                    .withGpa = bitmap_ != nullptr,
                                    .secretFree = secretFree,
                                    .form = options.form};
  channel_ = std::make_unique<AgentChannel>(agentPath, machine_->layout(), manner, std::move(hooks));
  if (options.stage2 != Stage2::trap) machine_->setStage2Resolver(this, options.stage2);
}

std::string Destination::handshakeJson(bool live) const {
  const GuestMemory &memory = machine_->memory();
  if (options_.handshake == Handshake::firecracker)
    return firecrackerJson(memory, machine_->layout(), options_.form);
  if (options_.handshake == Handshake::secretFree) return secretFreeJson(memory, machine_->layout(), options_.form);
  JsonArray regions, fds, registered, vcpus;
  for (size_t i = 0; i < memory.regions(); i++) {
    JsonObject region;
    region.add("base_host_virt_addr", reinterpret_cast<uintptr_t>(memory.region(i))).add("size", memory.regionBytes());
    region.add("offset", machine_->layout().offset(i, 0)).add("page_size", memory.pageBytes());
    if (memory.file() >= 0) region.add("file_offset", machine_->layout().offset(i, 0));
    if (bitmap_) region.add("gpa_start", machine_->layout().gpa(i));
    regions.raw(region.str());
  }
  if (uffd_) fds.raw("\"uffd\"");
  if (memory.file() >= 0) fds.raw(jsonString(nameOf(memory.kind())));
  if (bitmap_) fds.raw("\"bitmap\"");
  if (uffd_) registered.raw("\"missing\"");
  if (options_.registerMinor) registered.raw("\"minor\"");
  for (const pid_t tid : machine_->vcpuThreads()) vcpus.raw(std::to_string(tid));
  JsonObject out;
  out.add("protocol", "pagewake/1")
      .add("vm", machine_->config().name)
      .raw("regions", regions.str())
      .raw("fds", fds.str());
  out.raw("registered", registered.str()).raw("vcpus", vcpus.str());
  if (live) {
    JsonArray givenBack;
    for (const PagePlace &at : machine_->lastGivenBack())
      givenBack.raw(
          JsonObject().add("offset", machine_->layout().offset(at.region, at.page)).add("len", kPageBytes).str());
    out.add("content", "live").raw("given_back", givenBack.str());
  }
  return out.str() + "\n";
}

std::vector<int> Destination::descriptors() {
  std::vector<int> fds;
  if (uffd_) fds.push_back(uffd_.get());
  if (options_.handshake != Handshake::firecracker) {
    if (machine_->memory().file() >= 0) fds.push_back(machine_->memory().file());
    if (bitmap_ && options_.form != FirecrackerForm::twoDescriptors) fds.push_back(bitmap_->file());
    return fds;
  }
  if (options_.form == FirecrackerForm::noUserfaultfd) fds.clear();
  if (options_.form == FirecrackerForm::noUserfaultfd || options_.form == FirecrackerForm::twoDescriptors) {
    stray_ = Fd(memfd_create("stray", MFD_CLOEXEC));
    if (!stray_) failErrno("memfd_create");
    fds.push_back(stray_.get());
  }
  return fds;
}

long long Destination::handOverAndRun() {
  channel_->handshake([this](bool live) { return handshakeJson(live); }, descriptors());
  events::print(JsonObject().add("event", "handed_over").add("at_ns", monotonicNs()));
  // Firecracker waits for nothing. Where the agent is to refuse, its guest is never let go.
  if (options_.handshake == Handshake::pagewake || !agentTakes(options_.form))
    channel_->waitReady(options_.readyTimeoutMs);
  const long long resumedNs = machine_->resume();
  if (balloon_) balloon_->start();
  events::print(JsonObject().add("event", "resumed").add("at_ns", resumedNs));
  return resumedNs;
}

void Destination::onDone() {
  if (const uint64_t set = bitmap_ ? bitmap_->countSet() : 0; set > 0)
    events::failNow(exit_code::memoryGone, "BITMAP", text("the agent is done, and %lu bits of the bitmap are set", set));
  machine_->setTrapped(false);
  uffd_.reset();
}

void Destination::onAnswered(uint64_t offset) const {
  if (bitmap_ && offset < machine_->config().ramBytes && bitmap_->isSet(offset / kPageBytes))
    events::failNow(exit_code::memoryGone, "BITMAP",
                    text("the agent answered for the page at %lu while its bit is set: the guest would ask again", offset));
}

Stage2Outcome Destination::resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting) {
  const uint64_t offset = machine_->layout().offset(fault.region, fault.page);
  if (bitmap_ && !bitmap_->isSet(offset / kPageBytes)) {
    // There, or absent and known to be zeros. KVM never makes a page of such a slot itself.
    try {
      machine_->memory().allocate(offset);
    } catch (const Failure &failure) {
      events::failNow(exit_code::memoryGone, "MEMORY_GONE", failure.what());
    }
    fallocated_++;
  } else if (channel_->resolve(fault, stopWaiting) == Stage2Outcome::paused) {
    return Stage2Outcome::paused;
  }
  makeAccessible(fault);
  return Stage2Outcome::resolved;
}

void Destination::makeAccessible(const Stage2Fault &fault) const {
  // With MINOR registered the page in the cache is not enough: KVM's own lookup would take a minor fault that a
  // user-mode-only userfaultfd does not serve. A read from here takes it in user mode, where it is served.
  if (!options_.registerMinor || options_.stage2 != Stage2::exit) return;
  const volatile uint8_t *const page = machine_->memory().page(fault.region, fault.page);
  static_cast<void>(*page);
}

std::string Destination::stage2Json() const {
  return JsonObject()
      .add("stage2_batches", channel_->batches())
      .add("fallocated", fallocated_.load())
      .add("bits_set", bitmap_ ? bitmap_->countSet() : 0)
      .str();
}

std::string Destination::statsJson() const {
  JsonObject out;
  out.add("phase", channel_->phase());
  if (balloon_) out.raw("balloon", balloon_->statsJson());
  return out.str();
}

} // namespace testvmm
