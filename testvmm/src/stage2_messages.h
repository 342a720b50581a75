// What a VMM says and hears of stage-2 faults: as lines of our own channel, or as Firecracker's secret-free branch does.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vcpu.h"

namespace testvmm {

struct Stage2Request {
  uint64_t id;
  Stage2Fault fault;
};

struct Stage2Answer {
  /** The secret-free branch has none: what tells its requests apart is who asked for what. */
  std::optional<uint64_t> id;
  uint64_t vcpu, offset, len;
};

/** The most faults that one message may have. */
inline constexpr size_t kMaxBatch = 1024;

/** One line: `stage2_fault` for a single one, else `stage2_faults`. `withGpa`: the handshake said where the guest sees
 * its regions. */
std::string requestLine(const std::vector<Stage2Request> &requests, const Layout &layout, bool withGpa);
/** Objects back to back. */
std::string requestObjects(const std::vector<Stage2Request> &requests, const Layout &layout);

/** What `resolved` and `all_resolved` say. Throws Failure on what is not such a line. */
std::vector<Stage2Answer> answersOf(const std::string &line);
/** Takes whole objects from the front of the stream; half a one stays. Throws Failure on what is none. */
std::vector<Stage2Answer> takeAnswers(std::string &stream);

} // namespace testvmm
