// Is memory zero? SSE2 or AVX2 where the processor has it, plain words elsewhere (the compiler makes NEON of them).
#pragma once

#include <cstddef>
#include <cstdint>

namespace pagewake {

// Any alignment, any length. Stops at the first block that is not zero.
bool is_zero(const uint8_t* bytes, size_t length);

}  // namespace pagewake
