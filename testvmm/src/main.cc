// testvmm: see --help, and README.md in this folder.
#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "commands.h"
#include "events.h"
#include "failure.h"
#include "snapshot.h"
#include "worker.h"

namespace testvmm {
namespace {

/** Puts `value` in hexadecimal over the 16 zeros after "0x" in `line`; only what a signal handler may do. */
void putHex(char *line, uintptr_t value) {
  while (line[0] != '0' || line[1] != 'x') line++;
  for (char *digit = line + 17; value != 0; value >>= 4) *digit-- = "0123456789abcdef"[value & 15];
}

/** A poisoned page, or one lost from a truncated file: say where and end; nothing can be put in its place. */
void onSigbus(int, siginfo_t *info, void *) {
  char line[] = "testvmm: SIGBUS at 0x0000000000000000: this page of guest memory is poisoned or gone\n";
  char event[] = "{\"event\":\"failed\",\"reason\":\"SIGBUS\",\"message\":\"guest memory at 0x0000000000000000 is "
                 "poisoned or gone\"}\n";
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  putHex(line, address);
  putHex(event, address);
  static_cast<void>(!write(STDERR_FILENO, line, sizeof line - 1));
  // An agent that poisons pages says why right after; if it does, the channel's thread ends the program with its words.
  events::waitForReason();
  static_cast<void>(!write(STDOUT_FILENO, event, sizeof event - 1));
  events::exitNow(exit_code::memoryGone);
}

void prepareSignals(sigset_t &ending) {
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigprocmask(SIG_BLOCK, &ending, nullptr); // every thread inherits it: only sigwait below takes them
  signal(SIGPIPE, SIG_IGN);
  struct sigaction action{};
  action.sa_sigaction = onSigbus;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
  Worker::installKickSignal();
}

void announce(const Options &options) {
  const bool kvm = options.vm.kvm;
  const char *const roles[] = {"source", "destination", "snapshot"};
  JsonObject event;
  event.add("event", "started").add("role", roles[static_cast<int>(options.role)]).add("pid", getpid()).add("kvm", kvm);
  event.add("note", kvm             ? "the guest runs on KVM vCPUs"
                    : options.noKvm ? "--no-kvm: the workload runs on plain threads"
                                    : "/dev/kvm cannot be used: the workload runs on plain threads");
  events::print(event);
}

/** A configuration that does not fit is a bad command line, said before anything is made. */
void requireFittingLayout(const VmConfig &config) {
  try {
    layoutOf(config);
  } catch (const Failure &failure) {
    throw UsageError(failure.what());
  }
}

int run(Options options) {
  sigset_t ending;
  prepareSignals(ending);
  events::setQuietHeartbeats(options.quietHeartbeats);
  if (!KvmVm::available()) options.vm.kvm = false;
  if (options.role != Role::destination) requireFittingLayout(options.vm);
  announce(options);
  if (options.role == Role::snapshot) {
    takeSnapshot(options);
    events::exitNow(exit_code::ok);
  }
  Fd listener = listenControl(options.control);
  auto *const commands = new Commands(options); // for the life of the program: connections use it
  if (options.role == Role::source) {
    auto machine = std::make_shared<Machine>(options.vm);
    commands->setMachine(machine);
    machine->resume();
  }
  serveControl(std::move(listener),
               [commands](const std::vector<std::string> &words) { return commands->handle(words); });
  events::print(JsonObject().add("event", "listening").add("control", options.control));
  int signalNumber = 0;
  sigwait(&ending, &signalNumber);
  events::exitNow(exit_code::ok);
}

} // namespace
} // namespace testvmm

int main(int argc, char **argv) {
  using namespace testvmm;
  const std::vector<std::string> args(argv + 1, argv + argc);
  for (const std::string &arg : args)
    if (arg == "--help" || arg == "-h") {
      fputs(helpText().c_str(), stdout);
      return exit_code::ok;
    }
  try {
    return run(parseOptions(args));
  } catch (const UsageError &error) {
    fprintf(stderr, "testvmm: %s\n", error.what());
    return exit_code::usage;
  } catch (const std::exception &error) {
    events::failNow(exit_code::guestFailed, "SETUP", error.what());
  }
}
