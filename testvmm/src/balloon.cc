#include "balloon.h"

#include <chrono>
#include <thread>

#include "events.h"
#include "failure.h"

namespace testvmm {
namespace {
constexpr uint64_t kBatches = 20;
constexpr auto kBatchInterval = std::chrono::milliseconds(50);
} // namespace

Balloon::Balloon(Machine &machine, uint64_t pages) : machine_(machine), pages_(pages) {
  const uint64_t area = machine.layout().balloon.pages * machine.layout().regions;
  if (pages > area) fail("--balloon %lu: the source's --balloon-area has %lu pages", pages, area);
}

void Balloon::start() {
  std::thread([this] {
    try {
      run();
    } catch (const Failure &failure) {
      events::failNow(exit_code::guestFailed, "BALLOON", failure.what());
    }
  }).detach();
}

void Balloon::run() {
  const Layout &layout = machine_.layout();
  const uint64_t area = layout.balloon.pages * layout.regions;
  const PassOrder order(machine_.config().seed, kMaxVcpus + 1, 0, area, static_cast<uint64_t>(Order::random));
  uint64_t x = order.start;
  for (uint64_t step = 0; step < order.steps() && removed_ < pages_; step++, x = order.next(x)) {
    const uint64_t index = order.page(x);
    if (index >= area || !machine_.giveBackBalloonPage(index)) continue;
    const PagePlace at = machine_.balloonPage(index);
    if (const auto wrong = findNonZero(machine_.memory(), at.region, at.page, "balloon")) {
      machine_.reportWrong(*wrong);
      events::exitNow(exit_code::wrongPage);
    }
    if (++removed_ % std::max<uint64_t>(1, pages_ / kBatches) == 0) std::this_thread::sleep_for(kBatchInterval);
  }
  finished_ = true;
  events::print(JsonObject().add("event", "balloon").add("removed", removed_.load()).add("at_ns", monotonicNs()));
}

std::string Balloon::statsJson() const {
  return JsonObject().add("wanted", pages_).add("removed", removed_.load()).add("finished", finished_.load()).str();
}

} // namespace testvmm
