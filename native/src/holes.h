// Holes: whole pages that hold nothing, found without reading any memory and without filling any.
#pragma once

#include <napi.h>

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "runs.h"

namespace pagewake {

// The first data that overlaps [start, end), cut to it; nothing where there is none.
using NextData = std::function<std::optional<ByteRun>(uint64_t start, uint64_t end)>;

struct HoleSearch {
  RunList holes;
  // Looks that may still be had. What is not looked at any more is data: that is always true enough, and only costs a read.
  uint64_t looksLeft = UINT64_MAX;
  int error = 0;  // an errno, and what it was about
  const char* syscall = "";
  std::string detail;

  // The holes in [start, end), which must be whole pages. Extents know nothing of our pages: one is a hole only where all of it is.
  void look(const NextData& next, uint64_t start, uint64_t end, uint64_t pageSize);
  void fail(int error, const char* syscall, std::string detail);
};

// How many looks a list of holes is worth that is checked again: one each where nothing changed, and some for those that the guest has cut up.
uint64_t looks_for(size_t holes);

// Pairs of first byte and length, as JavaScript gives them back; false unless they ascend and are whole pages.
bool holes_of(std::span<const double> pairs, uint64_t pageSize, std::vector<ByteRun>& holes);

// Runs `work` on a thread of libuv's pool; a promise of the holes as pairs, rejected with a NativeError.
Napi::Value find_holes(Napi::Env env, std::function<void(HoleSearch&)> work);

// The holes as pairs, or the error thrown.
Napi::Value told_holes(Napi::Env env, const HoleSearch& search);

}  // namespace pagewake
