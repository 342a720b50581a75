#include "commands.h"

#include <unistd.h>

#include "destination.h"
#include "events.h"
#include "failure.h"

namespace testvmm {
namespace {

JsonObject okObject() { return JsonObject().add("ok", true); }

void requireWords(const std::vector<std::string> &words, size_t count, const char *form) {
  if (words.size() != count) fail("the form is: %s", form);
}

} // namespace

Commands::Commands(const Options &options) : options_(options) {}
Commands::~Commands() = default;

void Commands::setMachine(std::shared_ptr<Machine> machine) {
  const std::lock_guard lock(machineMutex_);
  machine_ = std::move(machine);
}

std::shared_ptr<Machine> Commands::machine() {
  const std::lock_guard lock(machineMutex_);
  if (!machine_) fail("there is no VM yet: `load PATH AGENT` first");
  return machine_;
}

Reply Commands::handle(const std::vector<std::string> &words) {
  const std::string command = words.empty() ? "" : words[0];
  if (command == "quit") return {okObject().str(), exit_code::ok};
  if (command == "memory") return {memory()};
  if (command == "stats") {
    const std::string stats = machine()->statsJson();
    const std::lock_guard lock(machineMutex_);
    if (!destination_) return {stats};
    std::string stage2 = destination_->stage2Json(); // as members beside those of the machine
    stage2.front() = ',';
    stage2.back() = ',';
    return {stats.substr(0, stats.size() - 1) + stage2 + "\"destination\":" + destination_->statsJson() + "}"};
  }
  const std::lock_guard lock(operation_);
  if (command == "load") {
    requireWords(words, 3, "load PATH AGENT_SOCKET");
    return load(words[1], words[2]);
  }
  if (command == "pause") {
    const long long at = machine()->pause();
    events::print(JsonObject().add("event", "paused").add("at_ns", at));
    return {okObject().add("paused_at_ns", at).str()};
  }
  if (command == "resume") {
    const long long at = machine()->resume();
    events::print(JsonObject().add("event", "resumed").add("at_ns", at));
    return {okObject().add("resumed_at_ns", at).str()};
  }
  if (command == "save") {
    requireWords(words, 2, "save PATH");
    const SavedState state = machine()->save();
    writeState(words[1], state);
    return {okObject().add("path", words[1]).add("paused_at_ns", state.pausedAtNs).str()};
  }
  if (command == "verify") return verify();
  if (command == "poke") {
    requireWords(words, 2, "poke OFFSET");
    if (!options_.testCommands) fail("poke spoils memory: start with --test-commands to allow it");
    if (words[1].find_first_not_of("0123456789") != std::string::npos || words[1].size() > 18)
      fail("poke: OFFSET is a whole number of bytes");
    machine()->poke(std::stoull(words[1]));
    return {okObject().str()};
  }
  fail("unknown command \"%s\": memory, pause, resume, save, load, stats, verify, poke, quit", command.c_str());
}

std::string Commands::memory() {
  const auto vm = machine();
  const GuestMemory &memory = vm->memory();
  JsonArray regions;
  for (size_t i = 0; i < memory.regions(); i++) {
    JsonObject region;
    region.add("address", reinterpret_cast<uintptr_t>(memory.region(i))).add("size", memory.regionBytes());
    region.add("offset", vm->layout().offset(i, 0))
        .add("page_size", memory.pageBytes())
        .add("gpa", vm->layout().gpa(i));
    if (memory.file() >= 0) region.add("file_offset", vm->layout().offset(i, 0));
    regions.raw(region.str());
  }
  JsonObject out;
  out.add("ok", true).add("vm", vm->config().name).add("pid", getpid()).add("memory", nameOf(memory.kind()));
  // A guest_memfd cannot be opened again through /proc, nor read as a file: its content is read through the regions.
  if (memory.kind() == MemoryKind::memfd) out.add("path", text("/proc/%d/fd/%d", getpid(), memory.file()));
  return out.add("size", vm->config().ramBytes).raw("regions", regions.str()).str();
}

Reply Commands::load(const std::string &statePath, const std::string &agentPath) {
  if (options_.role != Role::destination) fail("load: only a destination loads a state");
  {
    const std::lock_guard lock(machineMutex_);
    if (machine_) fail("load: this destination has its VM already");
  }
  auto destination = std::make_unique<Destination>(options_, readState(statePath), agentPath);
  Destination &running = *destination;
  {
    const std::lock_guard lock(machineMutex_);
    destination_ = std::move(destination);
    machine_ = running.machine();
  }
  try {
    const long long resumedNs = running.handOverAndRun();
    return {okObject().add("resumed_at_ns", resumedNs).str()};
  } catch (const Failure &failure) {
    // The agent may hold this VM's memory already, so it cannot be tried again here; the guest has not run.
    events::printFailed("HANDOVER", failure.what());
    return {JsonObject().add("ok", false).add("error", failure.what()).str(), exit_code::memoryGone};
  }
}

Reply Commands::verify() {
  const auto vm = machine();
  const VerifyResult result = vm->verify();
  JsonObject out = okObject();
  out.add("pages", result.pages()).add("workload_pages", result.workloadPages).add("io_pages", result.ioPages);
  out.add("balloon_pages", result.balloonPages).add("zero_pages", result.zeroPages).add("hole_pages", result.holePages);
  out.add("wrong", result.wrong);
  Reply reply{out.str()};
  if (result.firstWrong) {
    vm->reportWrong(*result.firstWrong);
    reply.exitCode = exit_code::wrongPage;
  }
  return reply;
}

} // namespace testvmm
