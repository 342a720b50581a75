#include "snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "events.h"
#include "failure.h"
#include "machine.h"

namespace testvmm {
namespace {

bool isZero(const uint8_t *page) {
  const auto *const words = reinterpret_cast<const uint64_t *>(page);
  for (uint64_t i = 0; i < kWordsPerPage; i++)
    if (words[i] != 0) return false;
  return true;
}

/** Holes of the memory file stay holes, zeros that were written stay written; memory without a file has its zero pages
 * left out. */
uint64_t writeImage(const std::string &path, const Machine &vm) {
  const Fd out(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!out || ftruncate(out.get(), static_cast<off_t>(vm.config().ramBytes)) != 0) failErrno("--out %s", path.c_str());
  const DataMap data(vm.memory());
  const Layout &layout = vm.layout();
  uint64_t written = 0;
  for (uint64_t region = 0; region < layout.regions; region++)
    for (uint64_t page = 0; page < layout.regionPages; page++) {
      const uint64_t imagePage = region * layout.regionPages + page;
      if (!data.holds(imagePage)) continue;
      const uint8_t *const content = vm.memory().page(region, page);
      if (!data.known() && isZero(content)) continue;
      if (pwrite(out.get(), content, kPageBytes, static_cast<off_t>(layout.offset(region, page))) !=
          static_cast<ssize_t>(kPageBytes))
        failErrno("--out %s", path.c_str());
      written++;
    }
  return written;
}

} // namespace

void takeSnapshot(const Options &options) {
  Machine vm(options.vm);
  vm.resume();
  // The I/O thread is slow on purpose, so it only has to have filled its pages.
  while (!vm.filled() || vm.lowestVcpuPass() < options.passes) usleep(2000);
  vm.pause();
  const uint64_t pages = writeImage(options.out, vm);
  writeState(options.out + ".state", vm.save());
  events::print(JsonObject()
                    .add("event", "snapshot")
                    .add("file", options.out)
                    .add("state", options.out + ".state")
                    .add("size", vm.config().ramBytes)
                    .add("pages", pages));
}

} // namespace testvmm
