// What this kernel can do, found by doing it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "file_calls.h"
#include "kernel_abi.h"

namespace pagewake::probe {

struct Capability {
  const char* name;
  bool available;
  std::string detail;  // what was done and what it answered
};

// Each appends its rows, in the order in which they are printed. They leave nothing behind and end by themselves.
void userfaultfd(std::vector<Capability>& rows);
void memory_files(std::vector<Capability>& rows);
void kvm(std::vector<Capability>& rows);
// Parts of kvm(); `mapped`: a guest_memfd of 64 KiB with these flags, or why there is none.
inline constexpr uint64_t kGuestMemfdShared = abi::kGuestMemfdMmap | abi::kGuestMemfdInitShared;
void guest_memfd(std::vector<Capability>& rows, const file::GuestMemfd& mapped);
void kvm_userfault(std::vector<Capability>& rows, const file::GuestMemfd& mapped);

// "what: done" or "what: ENOENT".
std::string answer(const std::string& what, int error);

}  // namespace pagewake::probe
