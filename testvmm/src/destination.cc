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
  if (options.stage2Exit && !config.kvm)
    fail("--stage2 exit: the state is of plain threads, which have no stage-2 faults");
  const bool traps = config.memory != MemoryKind::guestMemfd;
  if (!traps && (options.stage2Exit || options.balloonPages != 0 || options.registerMinor ||
                 options.handshake == Handshake::firecracker))
    fail(
        "guest_memfd cannot be trapped: --register, --stage2 exit, --balloon and --handshake firecracker do not apply");
  if (options.registerMinor && config.memory == MemoryKind::anon)
    fail("--register missing,minor: anonymous memory has no minor faults");
  return config;
}

Destination::Destination(const Options &options, const SavedState &state, const std::string &agentPath)
    : options_(options), machine_(std::make_shared<Machine>(configFor(options, state), state)) {
  if (options.balloonPages > 0) balloon_ = std::make_unique<Balloon>(*machine_, options.balloonPages);
  const bool firecracker = options.handshake == Handshake::firecracker;
  if (machine_->memory().kind() != MemoryKind::guestMemfd)
    uffd_ = registerMemory(machine_->memory(), {.minor = options.registerMinor,
                                                .userModeOnly = options.stage2Exit,
                                                .eventRemove = options.balloonPages > 0 || firecracker,
                                                .threadId = !firecracker});
  machine_->setTrapped(true);
  AgentChannel::Hooks hooks{[this] { onDone(); }, [this](const Stage2Fault &fault) { makeAccessible(fault); }};
  const AgentChannel::Manner manner{.keep = options.keepHandover,
                                    .byAnother = options.form == FirecrackerForm::byAnother,
                                    .inParts = options.form == FirecrackerForm::inParts};
  channel_ = std::make_unique<AgentChannel>(agentPath, machine_->layout(), manner, std::move(hooks));
  if (options.stage2Exit) machine_->setStage2Resolver(channel_.get());
}

std::string Destination::handshakeJson(bool live) const {
  const GuestMemory &memory = machine_->memory();
  if (options_.handshake == Handshake::firecracker)
    return firecrackerJson(memory, machine_->layout(), options_.form);
  JsonArray regions, fds, registered, vcpus;
  for (size_t i = 0; i < memory.regions(); i++) {
    JsonObject region;
    region.add("base_host_virt_addr", reinterpret_cast<uintptr_t>(memory.region(i))).add("size", memory.regionBytes());
    region.add("offset", machine_->layout().offset(i, 0)).add("page_size", memory.pageBytes());
    if (memory.file() >= 0) region.add("file_offset", machine_->layout().offset(i, 0));
    regions.raw(region.str());
  }
  if (uffd_) fds.raw("\"uffd\"");
  if (memory.file() >= 0) fds.raw(jsonString(nameOf(memory.kind())));
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
  if (options_.handshake != Handshake::firecracker || !agentTakes(options_.form))
    channel_->waitReady(options_.readyTimeoutMs);
  const long long resumedNs = machine_->resume();
  if (balloon_) balloon_->start();
  events::print(JsonObject().add("event", "resumed").add("at_ns", resumedNs));
  return resumedNs;
}

void Destination::onDone() {
  machine_->setTrapped(false);
  uffd_.reset();
}

void Destination::makeAccessible(const Stage2Fault &fault) const {
  // With MINOR registered the page in the cache is not enough: KVM's own lookup would take a minor fault that a
  // user-mode-only userfaultfd does not serve. A read from here takes it in user mode, where it is served.
  if (!options_.registerMinor) return;
  const volatile uint8_t *const page = machine_->memory().page(fault.region, fault.page);
  static_cast<void>(*page);
}

std::string Destination::statsJson() const {
  JsonObject out;
  out.add("phase", channel_->phase());
  if (balloon_) out.raw("balloon", balloon_->statsJson());
  return out.str();
}

} // namespace testvmm
