// The host's own look at every page of RAM: what each must hold follows from the contexts of its owners, nothing is
// remembered.
#pragma once
#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "config.h"
#include "json.h"
#include "memory.h"

namespace testvmm {

struct WrongPage {
  std::string finder; // "vcpu0", "io", "verify", "balloon"
  uint64_t region, page, word, expected, found, version;
};

struct VerifyResult {
  uint64_t workloadPages = 0, ioPages = 0, balloonPages = 0, zeroPages = 0, holePages = 0, wrong = 0;
  std::optional<WrongPage> firstWrong;
  uint64_t pages() const { return workloadPages + ioPages + balloonPages + zeroPages; }
};

/** Everything `verify` needs, taken while every worker is parked. */
struct VerifyPlan {
  VmConfig config;
  Layout layout;
  std::vector<GuestContext> contexts;
  /** By index in the balloon area: given back, so it must read as zeros. */
  std::vector<bool> givenBack;
  /** Pages that the memory file does not hold are zero without a look, and stay holes. */
  bool skipHoles;
};

/** Looks at every page; `progress` counts pages done. Touches memory: it waits where a page is served by an agent. */
VerifyResult verifyMemory(const VerifyPlan &plan, const GuestMemory &memory, std::atomic<uint64_t> &progress);

/** First wrong word of a page that must hold zeros. */
std::optional<WrongPage> findNonZero(const GuestMemory &memory, uint64_t region, uint64_t page, std::string finder);

/** The `wrong_page` event, and a line for people on stderr. `key`, `pattern` name what the page looks like instead. */
void reportWrongPage(const WrongPage &wrong, const Layout &layout, const GuestMemory &memory, uint64_t key,
                     uint64_t pattern);

} // namespace testvmm
