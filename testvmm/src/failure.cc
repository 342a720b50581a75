#include "failure.h"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace testvmm {
namespace {
std::string vtext(const char *format, va_list args) {
  va_list again;
  va_copy(again, args);
  const int length = vsnprintf(nullptr, 0, format, again);
  va_end(again);
  std::string out(length > 0 ? static_cast<size_t>(length) : 0, '\0');
  vsnprintf(out.data(), out.size() + 1, format, args);
  return out;
}
} // namespace

std::string text(const char *format, ...) {
  va_list args;
  va_start(args, format);
  std::string out = vtext(format, args);
  va_end(args);
  return out;
}

void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  std::string out = vtext(format, args);
  va_end(args);
  throw Failure(out);
}

void failErrno(const char *format, ...) {
  const int error = errno;
  va_list args;
  va_start(args, format);
  std::string out = vtext(format, args);
  va_end(args);
  throw Failure(out + ": " + strerror(error));
}

long long monotonicNs() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000ll + t.tv_nsec;
}

} // namespace testvmm
