#include "process_maps.h"

#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "file_calls.h"
#include "kernel_abi.h"

namespace pagewake::process {

namespace {

constexpr uint64_t kPage = 4096;  // pagemap has an entry a base page; corrected by the system's below
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kSwapped = uint64_t{1} << 62;

uint64_t base_page() {
  static const long size = ::sysconf(_SC_PAGESIZE);
  return size > 0 ? static_cast<uint64_t>(size) : kPage;
}

// The flags of smaps that say "userfaultfd": missing, write-protect, minor. Write-protected pages are there.
bool names_userfaultfd(const char* flags) { return std::strstr(flags, " um") != nullptr || std::strstr(flags, " ui") != nullptr; }

}  // namespace

std::vector<Mapping> mappings(pid_t pid, MapsFile from, uint64_t start, uint64_t end, int& error) {
  std::vector<Mapping> found;
  const std::string path = "/proc/" + std::to_string(pid) + (from == MapsFile::smaps ? "/smaps" : "/maps");
  FILE* file = ::fopen(path.c_str(), "re");
  error = file == nullptr ? errno : 0;
  if (file == nullptr) return found;
  char* line = nullptr;
  size_t room = 0;
  bool inside = false;
  while (::getline(&line, &room, file) > 0) {
    Mapping mapping;
    char permissions[8];
    if (std::sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %" SCNu64, &mapping.start, &mapping.end, permissions,
                    &mapping.fileOffset, &mapping.inode) == 5) {
      if (mapping.start >= end) break;
      inside = mapping.end > start;
      mapping.shared = permissions[3] == 's';
      if (inside) found.push_back(mapping);
    } else if (inside && std::strncmp(line, "VmFlags:", 8) == 0) {
      found.back().trapped = names_userfaultfd(line + 8);
    }
  }
  ::free(line);
  ::fclose(file);
  return found;
}

Population::Population(pid_t pid, const Mapping& mapping) : mapping_(mapping) {
  const std::string folder = "/proc/" + std::to_string(pid);
  if (mapping.shared && mapping.inode != 0) {
    char name[64];
    snprintf(name, sizeof name, "/map_files/%" PRIx64 "-%" PRIx64, mapping.start, mapping.end);
    // Refused without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, and for what is no ordinary file: then everything is read.
    file_.reset(::open((folder + name).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status{};
    // Past the end of the file there is no zero but a SIGBUS: that is for the reading to find.
    const auto needed = static_cast<off_t>(mapping.fileOffset + (mapping.end - mapping.start));
    if (file_.open() && (::fstat(file_.get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < needed)) file_.reset();
  } else if (!mapping.shared && mapping.inode == 0) {
    pagemap_.reset(::open((folder + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  }
}

ByteRun Population::next(uint64_t start, uint64_t end) {
  if (start >= end) return {end, 0};
  if (pagemap_.open()) return next_by_pagemap(start, end);
  if (!file_.open()) return {start, end - start};
  const uint64_t shift = mapping_.start - mapping_.fileOffset;  // may wrap; so does its use
  const auto data = file::next_data(file_.get(), start - shift, end - shift);
  return data ? ByteRun{data->first + shift, data->length} : ByteRun{end, 0};
}

ByteRun Population::next_by_pagemap(uint64_t start, uint64_t end) {
  const uint64_t page = base_page();
  abi::PageRegion populated{};
  abi::PagemapScan scan{};
  scan.size = sizeof scan;
  scan.start = start / page * page;
  scan.end = (end + page - 1) / page * page;
  scan.vec = reinterpret_cast<uint64_t>(&populated);
  scan.vecLen = 1;
  scan.categoryAnyOfMask = abi::kPageIsPresent | abi::kPageIsSwapped;
  // Not of the return mask: what is in memory and what is in swap is one run.
  scan.returnMask = 0;
  const int found = ::ioctl(pagemap_.get(), abi::kPagemapScan, &scan);
  // Linux before 6.7, or it was refused: an entry a page instead.
  if (found < 0) return next_by_entries(start, end);
  if (found == 0) return {end, 0};
  const uint64_t first = populated.start > start ? populated.start : start;
  const uint64_t stop = populated.end < end ? populated.end : end;
  return {first, stop - first};
}

ByteRun Population::next_by_entries(uint64_t start, uint64_t end) {
  constexpr size_t kEntries = 512;
  const uint64_t page = base_page();
  uint64_t entries[kEntries];
  ByteRun run{0, 0};
  for (uint64_t at = start / page * page; at < end;) {
    const uint64_t pages = (end - at + page - 1) / page;
    const size_t wanted = (pages < kEntries ? pages : kEntries) * sizeof entries[0];
    const ssize_t got = ::pread(pagemap_.get(), entries, wanted, static_cast<off_t>(at / page * sizeof entries[0]));
    // Gone, or refused after all: reading the memory itself will say what is the matter.
    if (got <= 0) return run.length > 0 ? run : ByteRun{start, end - start};
    for (size_t i = 0; i < static_cast<size_t>(got) / sizeof entries[0]; i++, at += page) {
      const bool populated = (entries[i] & (kPresent | kSwapped)) != 0;
      if (!populated && run.length > 0) return run;
      if (!populated) continue;
      const uint64_t first = at > start ? at : start;
      const uint64_t stop = at + page < end ? at + page : end;
      if (run.length == 0) run.first = first;
      run.length = stop - run.first;
    }
  }
  return run.length > 0 ? run : ByteRun{end, 0};
}

}  // namespace pagewake::process
