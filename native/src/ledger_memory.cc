#include "ledger_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "unique_fd.h"

namespace pagewake {

namespace {

constexpr uint64_t kMagic = 0x7265'6764'656c'7770;  // "pwledger", as it lies in the file
constexpr uint64_t kLayout = 1;
constexpr uint64_t kPagesPerWord = 16;
constexpr uint64_t kMaxPages = uint64_t{1} << 32;

// A word in a file is the word itself: no lock hides in it.
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == sizeof(uint64_t));
static_assert(sizeof(LedgerHeader) == 32);

}  // namespace

uint64_t LedgerMemory::bytes_for(uint64_t pageCount) {
  return kHeaderBytes + (pageCount + kPagesPerWord - 1) / kPagesPerWord * sizeof(uint64_t);
}

std::unique_ptr<LedgerMemory> LedgerMemory::map(int fd, uint64_t bytes) {
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (address == MAP_FAILED) return nullptr;
  return std::unique_ptr<LedgerMemory>(new LedgerMemory(address, bytes));
}

std::unique_ptr<LedgerMemory> LedgerMemory::create(uint64_t pageCount, const std::string& path) {
  const uint64_t bytes = bytes_for(pageCount);
  UniqueFd fd;
  if (!path.empty()) {
    // Not cut short and filled again: whoever has an older one mapped keeps it whole.
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return nullptr;
    fd.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd.open()) return nullptr;
    // All of it now: on a file system that is full a store into a hole would be a SIGBUS, in the middle of a migration.
    const int error = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes));
    if (error != 0) {
      ::unlink(path.c_str());
      errno = error;
      return nullptr;
    }
  }
  auto memory = map(fd.get(), bytes);
  if (memory == nullptr) return nullptr;
  LedgerHeader& header = memory->header();
  header.layout = kLayout;
  header.pageCount = pageCount;
  header.magic = kMagic;
  return memory;
}

std::unique_ptr<LedgerMemory> LedgerMemory::open(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status{};
  if (!fd.open() || ::fstat(fd.get(), &status) != 0) return nullptr;
  errno = EINVAL;
  const auto bytes = static_cast<uint64_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || bytes < kHeaderBytes) return nullptr;
  auto memory = map(fd.get(), bytes);
  if (memory == nullptr) return nullptr;
  const LedgerHeader& header = memory->header();
  const bool sound = header.magic == kMagic && header.layout == kLayout && header.pageCount > 0 && header.pageCount <= kMaxPages &&
                     bytes == bytes_for(header.pageCount);
  if (sound) return memory;
  errno = EINVAL;
  return nullptr;
}

LedgerMemory::~LedgerMemory() { ::munmap(address_, bytes_); }

}  // namespace pagewake
