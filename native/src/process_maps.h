// What another process's address range is made of, and which parts of it can hold anything at all.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runs.h"
#include "unique_fd.h"

namespace pagewake::process {

struct Mapping {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t fileOffset = 0;
  uint64_t inode = 0;
  bool shared = false;
  bool trapped = false;  // registered with a userfaultfd: what is absent is not zero but not there yet; known only from smaps
};

// smaps walks the page tables of every mapping, and holds the process up meanwhile; maps does neither.
enum class MapsFile { maps, smaps };

// The mappings that overlap [start, end), ascending. An errno in `error` where /proc does not tell.
std::vector<Mapping> mappings(pid_t pid, MapsFile from, uint64_t start, uint64_t end, int& error);

// Answers which bytes of one mapping are populated, without populating any. Where the system does not tell, all are.
class Population {
 public:
  Population(pid_t pid, const Mapping& mapping);
  // The first populated extent in [start, end) (addresses within the mapping), cut to it; length 0: there is none.
  ByteRun next(uint64_t start, uint64_t end);

 private:
  ByteRun next_by_pagemap(uint64_t start, uint64_t end);
  ByteRun next_by_entries(uint64_t start, uint64_t end);

  const Mapping mapping_;
  UniqueFd file_;     // of a shared mapping: its holes are where nothing was ever written, by anybody
  UniqueFd pagemap_;  // for private anonymous memory: what has neither a page nor a place in swap was never written
};

}  // namespace pagewake::process
