#include "verify.h"

#include <cstdio>

#include "events.h"
#include "failure.h"
#include "pattern.h"

namespace testvmm {
namespace {

/** The words of a page, re-read from memory on every access. */
using Words = const volatile uint64_t *;

Words wordsOf(const GuestMemory &memory, uint64_t region, uint64_t page) {
  return reinterpret_cast<Words>(memory.page(region, page));
}

struct Expectation {
  uint64_t key, pattern, imagePage, version;
};

/**
 * Compares a page. `torn`: its writer stands inside the page, so a prefix may already be the next version (one switch,
 * no return).
 */
std::optional<WrongPage> comparePage(Words words, const Expectation &e, bool torn) {
  PageWords now(e.key, e.pattern, e.imagePage, e.version), next(e.key, e.pattern, e.imagePage, e.version + 1);
  // kNoVersion + 1 is 0: a page in its first filling turns from zeros to version 0.
  bool mayBeNext = torn;
  for (uint64_t i = 0; i < kWordsPerPage; i++) {
    const uint64_t want = now.next(), wantNext = next.next(), found = words[i];
    if (mayBeNext && found == wantNext) continue;
    if (found != want) return WrongPage{"", 0, 0, i, want, found, e.version};
    mayBeNext = false;
  }
  return std::nullopt;
}

class Verification {
public:
  Verification(const VerifyPlan &plan, const GuestMemory &memory, std::atomic<uint64_t> &progress)
      : plan_(plan), memory_(memory), progress_(progress), data_(memory) {}

  VerifyResult run() {
    for (const GuestContext &context : plan_.contexts) owned(context);
    for (uint64_t region = 0; region < plan_.layout.regions; region++) {
      const Area &balloon = plan_.layout.balloon;
      for (uint64_t i = 0; i < balloon.pages; i++) {
        const bool gone = plan_.givenBack[region * balloon.pages + i];
        look(region, balloon.first + i, gone ? kNoVersion : 0, false);
        result_.balloonPages++;
      }
      for (const Area &zero : {plan_.layout.zeroFill, plan_.layout.untouched})
        for (uint64_t i = 0; i < zero.pages; i++) {
          look(region, zero.first + i, kNoVersion, false);
          result_.zeroPages++;
        }
    }
    return std::move(result_);
  }

private:
  void owned(const GuestContext &c) {
    if (c.ownedPages == 0) return;
    const uint64_t pass = c.position >> kPassShift, done = c.position & ((1ull << kPassShift) - 1);
    const PassOrder order(c.key, c.worker, pass, c.ownedPages, c.order);
    uint64_t x = order.start;
    for (uint64_t step = 0; step < order.steps(); step++, x = order.next(x)) {
      const uint64_t index = order.page(x);
      if (index >= c.ownedPages) continue;
      const PagePlace at = placeOf(c, index);
      const bool torn = c.touchKind == touch::write && c.touchRegion == at.region && c.touchPage == at.page;
      // Torn just after the step was counted: the page is whole in version `pass`, which is what is expected anyway.
      look(at.region, at.page, step < done ? pass : pass - 1, torn && step >= done);
      (c.worker == plan_.config.vcpus ? result_.ioPages : result_.workloadPages)++;
    }
  }

  void look(uint64_t region, uint64_t page, uint64_t version, bool torn) {
    progress_++;
    const uint64_t imagePage = region * plan_.layout.regionPages + page;
    if (version == kNoVersion && plan_.skipHoles && !data_.holds(imagePage)) {
      result_.holePages++;
      return;
    }
    const GuestContext &any = plan_.contexts[0];
    auto wrong = comparePage(wordsOf(memory_, region, page), {any.key, any.pattern, imagePage, version}, torn);
    if (!wrong) return;
    result_.wrong++;
    if (result_.firstWrong) return;
    wrong->finder = "verify";
    wrong->region = region;
    wrong->page = page;
    result_.firstWrong = std::move(wrong);
  }

  const VerifyPlan &plan_;
  const GuestMemory &memory_;
  std::atomic<uint64_t> &progress_;
  const DataMap data_;
  VerifyResult result_;
};

std::string versionName(uint64_t version) {
  return version == kNoVersion ? "zeros" : "version " + std::to_string(version);
}

/** "version 3", "zeros", or "no version of this page": tells a lost write from a lost page from another page's content.
 */
std::string looksLike(Words words, uint64_t key, uint64_t pattern, uint64_t imagePage, uint64_t expected) {
  for (const uint64_t version : {kNoVersion, expected - 1, expected - 2, expected - 3, expected + 1})
    if (!comparePage(words, {key, pattern, imagePage, version}, false)) return versionName(version);
  return "no version of this page";
}

} // namespace

VerifyResult verifyMemory(const VerifyPlan &plan, const GuestMemory &memory, std::atomic<uint64_t> &progress) {
  return Verification(plan, memory, progress).run();
}

std::optional<WrongPage> findNonZero(const GuestMemory &memory, uint64_t region, uint64_t page, std::string finder) {
  auto wrong = comparePage(wordsOf(memory, region, page), {0, 0, 0, kNoVersion}, false);
  if (!wrong) return wrong;
  wrong->finder = std::move(finder);
  wrong->region = region;
  wrong->page = page;
  return wrong;
}

void reportWrongPage(const WrongPage &w, const Layout &layout, const GuestMemory &memory, uint64_t key,
                     uint64_t pattern) {
  const uint64_t offset = layout.offset(w.region, w.page) + w.word * 8;
  const std::string looks =
      looksLike(wordsOf(memory, w.region, w.page), key, pattern, w.region * layout.regionPages + w.page, w.version);
  const std::string gpa = text("%#lx", layout.gpa(w.region) + w.page * kPageBytes + w.word * 8);
  const std::string expected = text("0x%016lx", w.expected);
  const std::string found = text("0x%016lx", w.found);
  events::print(JsonObject()
                    .add("event", "wrong_page")
                    .add("finder", w.finder)
                    .add("gpa", gpa)
                    .add("region", w.region)
                    .add("offset", offset)
                    .add("expected", expected)
                    .add("found", found)
                    .add("expected_version", versionName(w.version))
                    .add("looks_like", looks));
  fprintf(stderr,
          "testvmm: wrong page found by %s at GPA %s (image offset %lu): expected %s (%s), found %s (the page looks "
          "like %s)\n",
          w.finder.c_str(), gpa.c_str(), offset, expected.c_str(), versionName(w.version).c_str(), found.c_str(),
          looks.c_str());
}

} // namespace testvmm
