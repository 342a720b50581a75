// Calls on memory files, without JavaScript.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "outcome.h"
#include "runs.h"
#include "unique_fd.h"

namespace pagewake::file {

// Whether the file has write() and the descriptor allows it. Touches nothing.
bool writable(int fd);
Outcome write(int fd, std::span<const uint8_t> source, uint64_t fileOffset);
// `absent` where the file ends before the buffer is full.
Outcome read(int fd, std::span<uint8_t> into, uint64_t fileOffset);
Outcome punch(int fd, uint64_t offset, uint64_t length);

struct WriteRun {
  const uint8_t* source;
  uint64_t length;
  uint64_t fileOffset;
};
// In the order given; runs that follow each other in the file go in one pwritev.
Outcome write_runs(int fd, std::span<const WriteRun> runs);

// The first extent with data that overlaps [offset, end), cut to it; nothing where there are only holes. Everything is data
// where the file system cannot tell (ESPIPE, EINVAL).
std::optional<ByteRun> next_data(int fd, uint64_t offset, uint64_t end);

// Bytes, or a negative errno.
int64_t size(int fd);

// 'memfd-or-shmem', 'hugetlbfs', 'regular', 'guest_memfd' or 'other'.
const char* kind(int fd);

// A whole file mapped shared. Never shown to JavaScript; copied through process_vm_readv/writev on ourselves, where a page
// that cannot be had is an errno and not a SIGBUS that kills the agent.
class Mapping {
 public:
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { unmap(); }

  // 0 or an errno. Idempotent while the file keeps its size.
  int map(int fd, uint64_t sizeBytes);
  void unmap();
  Outcome store(std::span<const uint8_t> source, uint64_t offset);
  Outcome load(std::span<uint8_t> into, uint64_t offset);

 private:
  void* address_ = nullptr;
  uint64_t sizeBytes_ = 0;
};

// A guest_memfd and the virtual machine that it hangs on. `error` with the call that failed where there is none.
struct GuestMemfd {
  UniqueFd fd;
  UniqueFd vm;
  int error = 0;
  const char* call = "";
  const char* hint = "";
};
GuestMemfd create_guest_memfd(uint64_t sizeBytes, uint64_t flags);

}  // namespace pagewake::file
