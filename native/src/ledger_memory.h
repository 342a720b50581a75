// Where a ledger's words lie: in memory of this process, or in a file that outlives it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace pagewake {

// What a file begins with. One writer at a time, on this machine and of this build: `layout` says so.
struct LedgerHeader {
  uint64_t magic;
  uint64_t layout;
  uint64_t pageCount;
  // How far the migration is, as its owner numbers it.
  std::atomic<uint32_t> stage;
  // Somebody holds the install lock exclusively: events are being read and have not all been entered yet.
  std::atomic<uint32_t> reading;
};

class LedgerMemory {
 public:
  // Zeroed: every page missing. An empty path: no file; else one that is made anew, whatever was there. Null with errno set.
  static std::unique_ptr<LedgerMemory> create(uint64_t pageCount, const std::string& path);
  // What a process that is gone left behind. Null with errno set; EINVAL: that is no ledger, or not all of one.
  static std::unique_ptr<LedgerMemory> open(const std::string& path);
  ~LedgerMemory();
  LedgerMemory(const LedgerMemory&) = delete;
  LedgerMemory& operator=(const LedgerMemory&) = delete;

  LedgerHeader& header() { return *static_cast<LedgerHeader*>(address_); }
  std::atomic<uint64_t>* words() { return reinterpret_cast<std::atomic<uint64_t>*>(static_cast<char*>(address_) + kHeaderBytes); }

 private:
  static constexpr uint64_t kHeaderBytes = 4096;

  LedgerMemory(void* address, uint64_t bytes) : address_(address), bytes_(bytes) {}
  static uint64_t bytes_for(uint64_t pageCount);
  static std::unique_ptr<LedgerMemory> map(int fd, uint64_t bytes);

  void* const address_;
  const uint64_t bytes_;
};

}  // namespace pagewake
