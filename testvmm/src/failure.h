// How this program fails: a Failure carries one sentence for the user and ends in one place (main, or a control reply).
#pragma once
#include <stdexcept>
#include <string>

namespace testvmm {

/** Exit codes, documented by --help. */
namespace exit_code {
inline constexpr int ok = 0, wrongPage = 1, usage = 2, memoryGone = 3, guestFailed = 4;
}

class Failure : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

/** printf into a string. */
[[gnu::format(printf, 1, 2)]] std::string text(const char *format, ...);
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char *format, ...);
/** As `fail`, with what errno says appended. */
[[noreturn, gnu::format(printf, 1, 2)]] void failErrno(const char *format, ...);

/** CLOCK_MONOTONIC: the same clock for every process of a host, so that a move on one host can be timed across both. */
long long monotonicNs();

} // namespace testvmm
