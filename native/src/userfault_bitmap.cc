#include "userfault_bitmap.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>

#include "addon.h"
#include "args.h"
#include "file_calls.h"
#include "handed_over.h"

namespace pagewake {

namespace {

// Bit n is bit n % 8 of byte n / 8, for KVM; here it is taken by words, which is the same only so.
static_assert(std::endian::native == std::endian::little);
static_assert(std::atomic_ref<uint64_t>::is_always_lock_free);

constexpr uint64_t kMaxPages = uint64_t{1} << 32;  // a page number is a uint32 on the wire
constexpr napi_type_tag kTag = {0x9d1f6a0c53b247e8, 0x8e24c1b7f05a39d6};

// The bits of [first, end) that lie in word `word`.
uint64_t mask_of(uint64_t word, uint64_t first, uint64_t end) {
  const uint64_t from = std::max(first, word * 64) - word * 64;
  const uint64_t to = std::min(end, (word + 1) * 64) - word * 64;
  const uint64_t below = to == 64 ? ~uint64_t{0} : (uint64_t{1} << to) - 1;
  return below & ~((uint64_t{1} << from) - 1);
}

}  // namespace

// Whoever sent the descriptor could make the file shorter later, and the next clear() would be a SIGBUS that ends the agent with every VM in it. So its size
// is looked at once it cannot shrink any more. Huge pages are none of KVM's business here, and their mapping has other rules.
BitmapMapping::Refusal BitmapMapping::map(int fd, uint64_t pages) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || std::strcmp(file::kind(fd), "memfd-or-shmem") != 0) {
    return {seals < 0 && errno == EBADF ? EBADF : EINVAL, "F_GET_SEALS", "the bitmap is not a memfd of ordinary pages"};
  }
  if ((seals & F_SEAL_SHRINK) == 0 && ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return {errno, "F_ADD_SEALS", "the bitmap can be made shorter: make it with MFD_ALLOW_SEALING, or seal it with F_SEAL_SHRINK"};
  }
  const int64_t size = file::size(fd);
  const uint64_t needed = (pages + 63) / 64 * sizeof(uint64_t);
  if (size < 0 || static_cast<uint64_t>(size) < needed) {
    return {size < 0 ? static_cast<int>(-size) : EINVAL, "fstat",
            "the bitmap has " + std::to_string(size) + " bytes; " + std::to_string(pages) + " pages need " + std::to_string(needed)};
  }
  void* at = ::mmap(nullptr, needed, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return {errno, "mmap", "the bitmap cannot be written: neither open it for reading only nor seal it against writing"};
  words_ = static_cast<uint64_t*>(at);
  pages_ = pages;
  return {0, "", ""};
}

void BitmapMapping::unmap() {
  if (words_ != nullptr) ::munmap(words_, word_count() * sizeof(uint64_t));
  words_ = nullptr;
}

void BitmapMapping::clear(uint64_t first, uint64_t count) {
  const uint64_t end = first + count;
  for (uint64_t word = first / 64; word * 64 < end; word++) {
    const uint64_t mask = mask_of(word, first, end);
    std::atomic_ref<uint64_t> bits(words_[word]);
    // Nobody sets a bit again: what is clear needs no write, and its line stays where it is.
    if ((bits.load(std::memory_order_relaxed) & mask) != 0) bits.fetch_and(~mask, std::memory_order_release);
  }
}

bool BitmapMapping::is_set(uint64_t page) const {
  return (std::atomic_ref<uint64_t>(words_[page / 64]).load(std::memory_order_acquire) >> page % 64 & 1) != 0;
}

uint64_t BitmapMapping::count_set() const {
  uint64_t count = 0;
  for (uint64_t word = 0; word < word_count(); word++) {
    const uint64_t bits = std::atomic_ref<uint64_t>(words_[word]).load(std::memory_order_acquire);
    count += static_cast<uint64_t>(std::popcount(bits & mask_of(word, 0, pages_)));
  }
  return count;
}

Napi::Function UserfaultBitmap::define(Napi::Env env) {
  using B = UserfaultBitmap;
  return DefineClass(env, "UserfaultBitmap",
                     {InstanceMethod("pageCount", &B::page_count), InstanceMethod("clear", &B::clear), InstanceMethod("isSet", &B::is_set),
                      InstanceMethod("countSet", &B::count_set), InstanceMethod("close", &B::close)});
}

// (descriptor, pages): takes ownership, unless it throws.
UserfaultBitmap::UserfaultBitmap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<UserfaultBitmap>(info) {
  Args args(info);
  const GivenFd given = args.given_fd(0, "fd");
  const uint64_t pages = args.whole(1, "pages", kMaxPages);
  args.require(pages > 0, "pages must be at least 1");
  if (!args || !kept_by_javascript(*this)) return;
  const BitmapMapping::Refusal refusal = mapping_.map(given.fd, pages);
  if (refusal.error != 0) {
    throw_native(info.Env(), refusal.error, refusal.call, refusal.detail);
    return;
  }
  info.This().As<Napi::Object>().TypeTag(&kTag);
  const UniqueFd noLongerNeeded = given.take();
}

UserfaultBitmap* UserfaultBitmap::of(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTag)) return nullptr;
  return Unwrap(value.As<Napi::Object>());
}

bool UserfaultBitmap::require_open(const Napi::CallbackInfo& info) {
  if (mapping_.mapped()) return true;
  throw_native(info.Env(), EBADF, "UserfaultBitmap", "this bitmap is closed");
  return false;
}

Napi::Value UserfaultBitmap::page_count(const Napi::CallbackInfo& info) {
  if (!require_open(info)) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<double>(mapping_.pages()));
}

// (first, count)
void UserfaultBitmap::clear(const Napi::CallbackInfo& info) {
  if (!require_open(info)) return;
  Args args(info);
  const uint64_t first = args.whole(0, "first");
  const uint64_t count = args.whole(1, "count");
  args.require(first <= mapping_.pages() && count <= mapping_.pages() - first, "pages are not within the bitmap");
  if (args) mapping_.clear(first, count);
}

// (page) -> boolean
Napi::Value UserfaultBitmap::is_set(const Napi::CallbackInfo& info) {
  if (!require_open(info)) return info.Env().Undefined();
  Args args(info);
  const uint64_t page = args.whole(0, "page", mapping_.pages() - 1);
  if (!args) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), mapping_.is_set(page));
}

Napi::Value UserfaultBitmap::count_set(const Napi::CallbackInfo& info) {
  if (!require_open(info)) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<double>(mapping_.count_set()));
}

void UserfaultBitmap::close(const Napi::CallbackInfo&) { mapping_.unmap(); }

void init_userfault_bitmap(Napi::Env env, Napi::Object exports) { exports.Set("UserfaultBitmap", UserfaultBitmap::define(env)); }

}  // namespace pagewake
