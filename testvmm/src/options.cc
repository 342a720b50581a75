#include "options.h"

#include <functional>

#include "failure.h"

namespace testvmm {
namespace {

enum Roles : unsigned {
  forSource = 1,
  forDestination = 2,
  forSnapshot = 4,
  forVm = forSource | forSnapshot,
  forAll = 7
};

struct Option {
  const char *name;
  /** nullptr: a flag without a value. */
  const char *argument;
  unsigned roles;
  const char *help;
  std::function<void(Options &, const std::string &)> set;
};

[[noreturn]] void usage(const std::string &message) { throw UsageError(message + "; see testvmm --help"); }

uint64_t number(const std::string &option, const std::string &value) {
  if (value.empty() || value.size() > 18 || value.find_first_not_of("0123456789") != std::string::npos)
    usage(option + ": a whole number is needed, not \"" + value + "\"");
  return std::stoull(value);
}

/** "640M", "1G", "4096": bytes. */
uint64_t size(const std::string &option, const std::string &value) {
  const size_t unit = value.find_first_not_of("0123456789");
  const std::string suffix = unit == std::string::npos ? "" : value.substr(unit);
  unsigned shift = 0;
  if (suffix == "K")
    shift = 10;
  else if (suffix == "M")
    shift = 20;
  else if (suffix == "G")
    shift = 30;
  else if (!suffix.empty())
    usage(option + ": a size is a number with K, M or G, not \"" + value + "\"");
  const uint64_t units = number(option, value.substr(0, unit));
  if (units > (1ull << 42) >> shift) usage(option + ": " + value + " is beyond any guest here");
  return units << shift;
}

template <typename T>
T oneOf(const std::string &option, const std::string &value, const std::vector<std::pair<const char *, T>> &choices) {
  std::string names;
  for (const auto &[name, choice] : choices) {
    if (value == name) return choice;
    names += std::string(names.empty() ? "" : ", ") + name;
  }
  usage(option + ": one of " + names + ", not \"" + value + "\"");
}

const std::vector<Option> &table() {
  static const std::vector<Option> options = {
      {"--control", "PATH", forSource | forDestination, "Unix socket for commands (below); required",
       [](Options &o, auto &v) { o.control = v; }},
      {"--vm", "NAME", forAll, "name in the handshake (default testvmm; a destination takes it from the state)",
       [](Options &o, auto &v) { o.vmName = v; }},
      {"--memory", "KIND", forAll, "memfd (default), anon, guest_memfd; a destination may differ from its source",
       [](Options &o, auto &v) {
         o.memory = oneOf<MemoryKind>(
             "--memory", v,
             {{"memfd", MemoryKind::memfd}, {"anon", MemoryKind::anon}, {"guest_memfd", MemoryKind::guestMemfd}});
       }},
      {"--no-kvm", nullptr, forAll, "run the workload on plain threads even where /dev/kvm is",
       [](Options &o, auto &) { o.noKvm = true; }},
      {"--quiet-heartbeats", nullptr, forAll, "no heartbeat events on stdout",
       [](Options &o, auto &) { o.quietHeartbeats = true; }},
      {"--test-commands", nullptr, forSource | forDestination, "allow the control command `poke`",
       [](Options &o, auto &) { o.testCommands = true; }},
      {"--ram", "SIZE", forVm, "guest RAM, e.g. 1G (default)",
       [](Options &o, auto &v) { o.vm.ramBytes = size("--ram", v); }},
      {"--workload", "SIZE", forVm, "RAM that the vCPUs fill, verify and rewrite (default 640M)",
       [](Options &o, auto &v) { o.vm.workloadBytes = size("--workload", v); }},
      {"--vcpus", "N", forVm, "1 (default) to 62", [](Options &o, auto &v) { o.vm.vcpus = number("--vcpus", v); }},
      {"--ring", "N", forVm, "privilege level of the vCPUs: 3 (default), or 0, as kernels run",
       [](Options &o, auto &v) { o.vm.ring = oneOf<uint64_t>("--ring", v, {{"0", 0}, {"3", 3}}); }},
      {"--regions", "N", forVm, "RAM in 1 (default) to 8 regions of equal size, with holes between",
       [](Options &o, auto &v) { o.vm.regions = number("--regions", v); }},
      {"--page-size", "BYTES", forVm, "host pages: 4096 (default) or 2097152 (hugetlb memfd)",
       [](Options &o, auto &v) {
         o.vm.pageBytes = oneOf<uint64_t>("--page-size", v, {{"4096", 4096}, {"2097152", 2097152}});
       }},
      {"--seed", "N", forVm, "key of the pattern (default 1)",
       [](Options &o, auto &v) { o.vm.seed = number("--seed", v); }},
      {"--pattern", "KIND", forVm,
       "random (default), text (LZ4 shrinks it about 3 times), zero-heavy (80 % of pages zero)",
       [](Options &o, auto &v) {
         o.vm.pattern =
             oneOf<Pattern>("--pattern", v,
                            {{"random", Pattern::random}, {"text", Pattern::text}, {"zero-heavy", Pattern::zeroHeavy}});
       }},
      {"--order", "ORDER", forVm, "in which each pass visits pages: random (default) or sequential",
       [](Options &o, auto &v) {
         o.vm.order = oneOf<Order>("--order", v, {{"random", Order::random}, {"sequential", Order::sequential}});
       }},
      {"--heartbeat-ms", "N", forVm, "between two heartbeats of a worker, by its own clock (default 100)",
       [](Options &o, auto &v) { o.vm.heartbeatMs = number("--heartbeat-ms", v); }},
      {"--vcpu-rate", "N", forVm, "pages a second of each vCPU (default 0: as fast as it can)",
       [](Options &o, auto &v) { o.vm.vcpuRate = number("--vcpu-rate", v); }},
      {"--io-pages", "N", forVm,
       "4 KiB pages that the I/O thread works on from user space (default 4096; 0: no such thread)",
       [](Options &o, auto &v) { o.vm.ioPages = number("--io-pages", v); }},
      {"--io-rate", "N", forVm, "pages a second of the I/O thread (default 2000; 0: as fast as it can)",
       [](Options &o, auto &v) { o.vm.ioRate = number("--io-rate", v); }},
      {"--zero-fill", "SIZE", forVm, "RAM written with zeros at start; the rest of RAM is never written (default 0)",
       [](Options &o, auto &v) { o.vm.zeroFillBytes = size("--zero-fill", v); }},
      {"--balloon-area", "SIZE", forVm, "RAM written at start and never again, for --balloon (default 0)",
       [](Options &o, auto &v) { o.vm.balloonBytes = size("--balloon-area", v); }},
      {"--register", "MODES", forDestination, "userfaultfd modes: missing (default) or missing,minor",
       [](Options &o, auto &v) {
         o.registerMinor = oneOf<bool>("--register", v, {{"missing", false}, {"missing,minor", true}});
       }},
      {"--handshake", "KIND", forDestination,
       "pagewake (default), firecracker (bare array, one userfaultfd, anonymous memory unless --memory says else), "
       "secret-free (of Firecracker's branch: three descriptors, a word, requests as JSON objects)",
       [](Options &o, auto &v) {
         o.handshake = oneOf<Handshake>("--handshake", v,
                                        {{"pagewake", Handshake::pagewake},
                                         {"firecracker", Handshake::firecracker},
                                         {"secret-free", Handshake::secretFree}});
       }},
      {"--form", "FORM", forDestination,
       "how a Firecracker handshake looks or comes, right or wrong (README.md; default both)",
       [](Options &o, auto &v) {
         o.form = oneOf<FirecrackerForm>("--form", v,
                                         {{"both", FirecrackerForm::both},
                                          {"page-size", FirecrackerForm::pageSize},
                                          {"page-size-kib", FirecrackerForm::pageSizeKib},
                                          {"contradicting", FirecrackerForm::contradicting},
                                          {"more-fields", FirecrackerForm::moreFields},
                                          {"newline", FirecrackerForm::newline},
                                          {"in-parts", FirecrackerForm::inParts},
                                          {"word-in-parts", FirecrackerForm::wordInParts},
                                          {"word-joined", FirecrackerForm::wordJoined},
                                          {"apf-socket", FirecrackerForm::apfSocket},
                                          {"by-another", FirecrackerForm::byAnother},
                                          {"no-userfaultfd", FirecrackerForm::noUserfaultfd},
                                          {"two-descriptors", FirecrackerForm::twoDescriptors},
                                          {"fields-missing", FirecrackerForm::fieldsMissing},
                                          {"wrong-kind", FirecrackerForm::wrongKind},
                                          {"exitless", FirecrackerForm::exitless},
                                          {"framed", FirecrackerForm::framed},
                                          {"half", FirecrackerForm::half}});
       }},
      {"--handover", "HOW", forDestination,
       "once (default); keep: if the agent goes away, hand the same memory to the one that comes next",
       [](Options &o, auto &v) {
         o.keepHandover = oneOf<bool>("--handover", v, {{"once", false}, {"keep", true}});
       }},
      {"--stage2", "HOW", forDestination,
       "trap (default): stage-2 faults reach the userfaultfd; exit: KVM exits, asked for on the channel; userfault: the "
       "same by a bitmap that KVM reads (needs the kernel of `npm run lab`)",
       [](Options &o, auto &v) {
         o.stage2 = oneOf<Stage2>(
             "--stage2", v, {{"trap", Stage2::trap}, {"exit", Stage2::exit}, {"userfault", Stage2::userfault}});
       }},
      {"--bitmap", nullptr, forDestination,
       "with --stage2 exit: hand over a bitmap of stage-2 faults, and hold the agent to it",
       [](Options &o, auto &) { o.bitmap = true; }},
      {"--balloon", "N", forDestination,
       "after resuming give N pages of the balloon area back and require zeros (default 0)",
       [](Options &o, auto &v) { o.balloonPages = number("--balloon", v); }},
      {"--ready-timeout", "MS", forDestination, "how long `load` waits for the agent's `ready` (default 120000)",
       [](Options &o, auto &v) { o.readyTimeoutMs = number("--ready-timeout", v); }},
      {"--out", "FILE", forSnapshot, "memory image to write; the state goes to FILE.state; required",
       [](Options &o, auto &v) { o.out = v; }},
      {"--passes", "N", forSnapshot, "passes over the workload before the snapshot, the filling included (default 2)",
       [](Options &o, auto &v) { o.passes = number("--passes", v); }},
  };
  return options;
}

const char *const kHead = R"(testvmm: a small KVM VMM whose guest verifies every page it touches

  testvmm source      --control PATH [options]            runs a guest at once
  testvmm destination --control PATH [options]            waits for `load`
  testvmm snapshot    --out FILE     [options]            runs, saves FILE (sparse image) and FILE.state, ends

  testvmm source --ram 1G --workload 640M --vcpus 2 --seed 7 --control /tmp/source.sock

Options (S source, D destination, N snapshot):
)";

const char *const kTail = R"(
Control commands (one line each, answered by one JSON line {"ok":true,...} or {"ok":false,"error":"..."}):
  memory                where guest RAM is: pid, kind, path of the memory file, regions
  pause                 parks vCPUs and I/O thread; paused_at_ns (CLOCK_MONOTONIC)
  resume                lets them go
  save PATH             writes the state blob (paused only)
  load PATH AGENT       destination: builds the VM from a blob with RAM empty, hands RAM to the agent at Unix socket
                        AGENT, runs the guest when it may; resumed_at_ns
  stats                 work, passes, heartbeats and their longest gaps
  verify                checks every page of RAM from the host; exits 1 after the answer if one is wrong
  poke OFFSET           flips a bit at OFFSET of the image (--test-commands only)
  quit                  ends (so does SIGTERM)

Events come on stdout, one JSON line each; the first says whether the guest runs on KVM or on plain threads.
Exit: 0 ended on request, 1 wrong page, 2 bad command line, 3 memory cannot be had any more, 4 the VM cannot be built or run.
)";

const Option *find(const std::string &name) {
  for (const Option &option : table())
    if (name == option.name) return &option;
  return nullptr;
}

void applyCommon(Options &o) {
  if (o.vmName) o.vm.name = *o.vmName;
  if (o.memory) o.vm.memory = *o.memory;
  if (o.noKvm) o.vm.kvm = false;
}

/** The main branch has no word; the secret-free one always has its fields. */
bool formApplies(Handshake handshake, FirecrackerForm form) {
  switch (form) {
  case FirecrackerForm::wordInParts:
  case FirecrackerForm::wordJoined:
  case FirecrackerForm::apfSocket:
  case FirecrackerForm::fieldsMissing:
  case FirecrackerForm::wrongKind:
  case FirecrackerForm::exitless:
  case FirecrackerForm::framed: return handshake == Handshake::secretFree;
  case FirecrackerForm::noUserfaultfd: return handshake == Handshake::firecracker;
  default: return true;
  }
}

void requireCombination(const Options &o) {
  if (o.role == Role::snapshot && o.out.empty()) usage("snapshot: --out FILE is required");
  if (o.role != Role::snapshot && o.control.empty()) usage("--control PATH is required");
  if (o.vm.pageBytes != kPageBytes && o.vm.memory != MemoryKind::memfd)
    usage("--page-size 2097152: only with --memory memfd");
  if (o.vm.pageBytes != kPageBytes && o.vm.balloonBytes != 0) usage("--balloon-area: only with --page-size 4096");
  if (o.handshake == Handshake::firecracker && o.registerMinor)
    usage("--handshake firecracker registers MISSING only: leave --register out");
  if (o.handshake == Handshake::firecracker && o.stage2 != Stage2::trap)
    usage("--handshake firecracker has no messages: --stage2 exit cannot work");
  if (o.handshake == Handshake::secretFree && !(o.registerMinor && hasBitmap(o)))
    usage("--handshake secret-free registers both modes and has a bitmap: add --register missing,minor and --stage2 "
          "userfault, or --stage2 exit --bitmap");
  if (o.handshake != Handshake::pagewake && o.keepHandover)
    usage("a Firecracker handshake hands over once: --handover keep cannot work");
  if (o.handshake == Handshake::pagewake && o.form != FirecrackerForm::both)
    usage("--form: only with --handshake firecracker or secret-free");
  if (o.form != FirecrackerForm::both && !formApplies(o.handshake, o.form))
    usage("--form: this one is of the other Firecracker handshake");
  if (o.bitmap && o.stage2 == Stage2::trap) usage("--bitmap: only with --stage2 exit");
  if (o.stage2 != Stage2::trap && o.noKvm) usage("--stage2 exit: plain threads have no stage-2 faults");
  if (o.memory)
    if (const char *const why = whyNotWith(*o.memory, o)) usage(why);
}

} // namespace

const char *whyNotWith(MemoryKind memory, const Options &o) {
  if (o.registerMinor && memory == MemoryKind::anon)
    return "--register missing,minor: anonymous memory has no minor faults";
  if (hasBitmap(o) && memory == MemoryKind::anon) return "a bitmap of stage-2 faults needs a memory file";
  if (memory != MemoryKind::guestMemfd || o.stage2 == Stage2::userfault) return nullptr;
  if (o.registerMinor || o.stage2 != Stage2::trap || o.balloonPages != 0 || o.handshake != Handshake::pagewake)
    return "--memory guest_memfd cannot be trapped without --stage2 userfault: --register, --stage2 exit, --balloon and "
           "a Firecracker handshake do not apply";
  return nullptr;
}

std::string helpText() {
  std::string out = kHead;
  for (const Option &option : table()) {
    const std::string left =
        std::string(option.name) + (option.argument != nullptr ? std::string(" ") + option.argument : "");
    std::string roles;
    for (const auto &[bit, letter] : {std::pair{forSource, 'S'}, {forDestination, 'D'}, {forSnapshot, 'N'}})
      roles += (option.roles & bit) != 0 ? letter : ' ';
    out += text("  %-22s %s  %s\n", left.c_str(), roles.c_str(), option.help);
  }
  return out + kTail;
}

Options parseOptions(const std::vector<std::string> &args) {
  if (args.empty()) usage("a role is needed: source, destination or snapshot");
  Options out;
  out.role = oneOf<Role>("role", args[0],
                         {{"source", Role::source}, {"destination", Role::destination}, {"snapshot", Role::snapshot}});
  const unsigned role = out.role == Role::source        ? forSource
                        : out.role == Role::destination ? forDestination
                                                        : forSnapshot;
  for (size_t i = 1; i < args.size(); i++) {
    const Option *const option = find(args[i]);
    if (option == nullptr) usage("unknown option " + args[i]);
    if ((option->roles & role) == 0) usage(args[i] + " does not apply to " + args[0]);
    if (option->argument != nullptr && i + 1 >= args.size())
      usage(args[i] + " needs a value (" + option->argument + ")");
    option->set(out, option->argument != nullptr ? args[++i] : std::string());
  }
  applyCommon(out);
  requireCombination(out);
  return out;
}

} // namespace testvmm
