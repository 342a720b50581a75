#include "probe.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "addon.h"
#include "file_calls.h"
#include "kernel_abi.h"
#include "outcome.h"
#include "scratch.h"

namespace pagewake {

namespace probe {

std::string answer(const std::string& what, int error) { return what + ": " + (error == 0 ? "done" : errno_name(error)); }

namespace {

Capability seek_data() {
  const char* name = "memfd SEEK_DATA";
  const UniqueFd fd = scratch_file(4 * kPageBytes);
  const char byte = 1;
  if (!fd.open() || ::pwrite(fd.get(), &byte, 1, static_cast<off_t>(2 * kPageBytes)) != 1) {
    return {name, false, answer("a memfd", errno)};
  }
  const off_t data = ::lseek(fd.get(), 0, SEEK_DATA);
  if (data < 0) return {name, false, answer("lseek(SEEK_DATA)", errno)};
  const bool right = static_cast<uint64_t>(data) == 2 * kPageBytes;
  return {name, right, "the third page written: data found at byte " + std::to_string(data)};
}

Capability huge_pages() {
  const char* name = "hugetlb 2 MiB";
  constexpr uint64_t kHuge = 2 << 20;
  const UniqueFd fd(::memfd_create("pagewake-probe", MFD_CLOEXEC | MFD_HUGETLB | (21u << 26)));
  if (!fd.open()) return {name, false, answer("memfd_create(MFD_HUGETLB | MFD_HUGE_2MB)", errno)};
  if (::ftruncate(fd.get(), kHuge) != 0) return {name, false, answer("ftruncate", errno)};
  // Mapping reserves the page; none is touched.
  const Scratch memory(fd.get(), kHuge);
  return {name, memory.valid(),
          memory.valid() ? "a page was reserved" : answer("mmap of one page (vm.nr_hugepages may be 0)", memory.error())};
}

Capability process_read() {
  const uint64_t value = 0x70616765;
  uint64_t copy = 0;
  const iovec local{&copy, sizeof copy};
  const iovec remote{const_cast<uint64_t*>(&value), sizeof value};
  const ssize_t got = ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0);
  const bool right = got == static_cast<ssize_t>(sizeof copy) && copy == value;
  return {"process_vm_readv", right, answer("8 bytes of this process", got < 0 ? errno : 0)};
}

Capability pagemap_scan() {
  const char* name = "PAGEMAP_SCAN";
  const UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap.open()) return {name, false, answer("/proc/self/pagemap", errno)};
  const Scratch memory(-1, 2 * kPageBytes);
  if (!memory.valid()) return {name, false, answer("mmap", memory.error())};
  *memory.bytes() = 1;
  abi::PageRegion region{};
  abi::PagemapScan scan{};
  scan.size = sizeof scan;
  scan.start = memory.address();
  scan.end = memory.address() + memory.size();
  scan.vec = reinterpret_cast<uint64_t>(&region);
  scan.vecLen = 1;
  scan.categoryMask = abi::kPageIsPresent;
  scan.returnMask = abi::kPageIsPresent;
  const int found = ::ioctl(pagemap.get(), abi::kPagemapScan, &scan);
  if (found < 0) return {name, false, answer("ioctl", errno)};
  const bool right = found == 1 && region.start == memory.address() && region.end == memory.address() + kPageBytes;
  return {name, right, right ? "found the one page of two that was touched" : "did not find the page that was touched"};
}

}  // namespace

void memory_files(std::vector<Capability>& rows) {
  rows.push_back(seek_data());
  rows.push_back(huge_pages());
  rows.push_back(process_read());
  rows.push_back(pagemap_scan());
}

}  // namespace probe

namespace {

// () -> rows of name, available, detail
Napi::Value run_probe(const Napi::CallbackInfo& info) {
  std::vector<probe::Capability> rows;
  probe::userfaultfd(rows);
  probe::memory_files(rows);
  probe::kvm(rows);
  Napi::Array result = Napi::Array::New(info.Env(), rows.size());
  for (uint32_t i = 0; i < rows.size(); i++) {
    Napi::Object row = Napi::Object::New(info.Env());
    row.Set("name", rows[i].name);
    row.Set("available", rows[i].available);
    row.Set("detail", rows[i].detail);
    result.Set(i, row);
  }
  return result;
}

}  // namespace

void init_probe(Napi::Env env, Napi::Object exports) { exports.Set("probe", Napi::Function::New(env, run_probe, "probe")); }

}  // namespace pagewake
