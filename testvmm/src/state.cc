#include "state.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>

#include "failure.h"

namespace testvmm {
namespace {

constexpr uint64_t kMagic = 0x31545356'4d565750; // "PWVMVST1"
constexpr uint64_t kVersion = 3;
struct Header {
  uint64_t magic, version, bodyBytes, checksum;
};

/** FNV-1a, 64 bits. Each step is a bijection of the state, so one changed byte always changes the sum. */
uint64_t checksum(const std::string &bytes) {
  uint64_t sum = 0xcbf29ce484222325ull;
  for (const char c : bytes) sum = (sum ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return sum;
}

/** One list of fields for both directions: `field(x)` appends x to the body, or takes it from there. */
class Writer {
public:
  void field(const uint64_t &v) { raw(&v, sizeof v); }
  void field(const VcpuRegisters &v) { raw(&v, sizeof v); }
  void field(const std::string &v) {
    field(static_cast<uint64_t>(v.size()));
    raw(v.data(), v.size());
  }
  std::string body;

private:
  void raw(const void *data, size_t bytes) { body.append(static_cast<const char *>(data), bytes); }
};

class Reader {
public:
  explicit Reader(const std::string &theBody) : body_(theBody) {}
  void field(uint64_t &v) { raw(&v, sizeof v); }
  void field(VcpuRegisters &v) { raw(&v, sizeof v); }
  void field(std::string &v) {
    uint64_t bytes = 0;
    field(bytes);
    need(bytes);
    v.assign(body_, at_, bytes);
    at_ += bytes;
  }
  bool atEnd() const { return at_ == body_.size(); }

private:
  void need(uint64_t bytes) const {
    if (bytes > body_.size() - at_) fail("it ends in the middle of a field");
  }
  void raw(void *out, size_t bytes) {
    need(bytes);
    memcpy(out, body_.data() + at_, bytes);
    at_ += bytes;
  }
  const std::string &body_;
  size_t at_ = 0;
};

template <typename Io, typename T> void numberField(Io &io, T &value) {
  auto number = static_cast<uint64_t>(value);
  io.field(number);
  value = static_cast<T>(number);
}

constexpr uint64_t kMaxItems = 1u << 20;
template <typename Io, typename T, typename F> void listField(Io &io, std::vector<T> &list, F &&each) {
  uint64_t size = list.size();
  io.field(size);
  if (size > kMaxItems) fail("it claims a list of %lu items", size);
  list.resize(size);
  for (T &item : list) each(item);
}

template <typename Io> void fields(Io &io, SavedState &s) {
  VmConfig &c = s.config;
  io.field(c.name);
  numberField(io, c.memory);
  numberField(io, c.kvm);
  numberField(io, c.pattern);
  numberField(io, c.order);
  for (uint64_t *v : {&c.ring, &c.pageBytes, &c.ramBytes, &c.regions, &c.vcpus, &c.seed, &c.workloadBytes, &c.ioPages, &c.ioRate,
                      &c.vcpuRate, &c.heartbeatMs, &c.zeroFillBytes, &c.balloonBytes})
    io.field(*v);
  numberField(io, s.pausedAtNs);
  listField(io, s.workers, [&](SavedWorker &w) {
    numberField(io, w.lastHeartbeatNs);
    numberField(io, w.longestGapNs);
  });
  listField(io, s.registers, [&](VcpuRegisters &r) { io.field(r); });
  listField(io, s.bootPages, [&](std::pair<uint64_t, std::string> &page) {
    io.field(page.first);
    io.field(page.second);
  });
  listField(io, s.givenBack, [&](uint64_t &index) { io.field(index); });
}

/** What a correct checksum does not prove: that the parts fit each other. */
void requireConsistent(const SavedState &s) {
  const Layout layout = layoutOf(s.config);
  const uint64_t workers = s.config.vcpus + (layout.io.pages > 0 ? 1 : 0);
  if (s.workers.size() != workers)
    fail("it has %zu workers where its configuration has %lu", s.workers.size(), workers);
  if (s.registers.size() != (s.config.kvm ? s.config.vcpus : 0))
    fail("it has registers of %zu vCPUs", s.registers.size());
  for (const auto &[index, content] : s.bootPages)
    if (index >= BootSlot::kBytes / kPageBytes || content.size() != kPageBytes)
      fail("it has a boot page that does not fit");
  for (const uint64_t index : s.givenBack)
    if (index >= layout.balloon.pages * layout.regions) fail("it names a balloon page that does not exist");
}

std::string readFile(const std::string &path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!fd || fstat(fd.get(), &info) != 0) failErrno("state blob %s", path.c_str());
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  if (read(fd.get(), bytes.data(), bytes.size()) != info.st_size) failErrno("reading state blob %s", path.c_str());
  return bytes;
}

} // namespace

void writeState(const std::string &path, const SavedState &state) {
  Writer writer;
  SavedState copy = state;
  fields(writer, copy);
  const Header header{kMagic, kVersion, writer.body.size(), checksum(writer.body)};
  const std::string sibling = path + ".part";
  const Fd fd(open(sibling.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd || write(fd.get(), &header, sizeof header) != static_cast<ssize_t>(sizeof header) ||
      write(fd.get(), writer.body.data(), writer.body.size()) != static_cast<ssize_t>(writer.body.size()))
    failErrno("writing state blob %s", sibling.c_str());
  if (rename(sibling.c_str(), path.c_str()) != 0) failErrno("renaming state blob to %s", path.c_str());
}

SavedState readState(const std::string &path) {
  const std::string bytes = readFile(path);
  Header header{};
  if (bytes.size() < sizeof header) fail("state blob %s: too short (%zu bytes) to be one", path.c_str(), bytes.size());
  memcpy(&header, bytes.data(), sizeof header);
  const std::string body = bytes.substr(sizeof header);
  if (header.magic != kMagic)
    fail("state blob %s: not a state blob of testvmm (save one with `save PATH`)", path.c_str());
  if (header.version != kVersion)
    fail("state blob %s: version %lu, this program reads version %lu", path.c_str(), header.version, kVersion);
  if (header.bodyBytes != body.size())
    fail("state blob %s: %zu bytes where its header says %lu: it was cut or grew", path.c_str(), body.size(),
         header.bodyBytes);
  if (header.checksum != checksum(body))
    fail("state blob %s: checksum mismatch: it was damaged; save and copy it again", path.c_str());
  SavedState state;
  try {
    Reader reader(body);
    fields(reader, state);
    if (!reader.atEnd()) fail("it has bytes after its last field");
    requireConsistent(state);
  } catch (const Failure &failure) {
    fail("state blob %s: %s", path.c_str(), failure.what());
  }
  return state;
}

} // namespace testvmm
