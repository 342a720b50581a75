// What a call on memory came to, and the one place where errno becomes that.
#pragma once

#include <cstdint>

namespace pagewake {

// The order is the order of KINDS in ts/outcome.ts.
enum class OutcomeKind : uint8_t { done, present, again, unmapped, exited, noMemory, absent, refused };

// What was called: the same errno does not mean the same everywhere.
enum class Call : uint8_t { copy, zeropage, continuePage, wake, poison, unregister, write, read, punch, store, load, processRead };

struct Outcome {
  OutcomeKind kind = OutcomeKind::done;
  uint64_t bytes = 0;  // done before it stopped
  int error = 0;       // of `refused`
};

inline Outcome done(uint64_t bytes) { return {OutcomeKind::done, bytes, 0}; }

// The outcome of `call` that stopped with `error` (an errno, not 0) after `bytes`. The table is in docs/kernel.md.
Outcome stopped(Call call, int error, uint64_t bytes);

// One number for JavaScript, so that no object is made on this side: bytes * 2048 + errno * 8 + kind. Exact below 4 TiB a call.
inline constexpr uint64_t kMaxCallBytes = uint64_t{1} << 42;
double encode(const Outcome& outcome);

// "ENOENT". Thread-safe.
const char* errno_name(int error);

}  // namespace pagewake
