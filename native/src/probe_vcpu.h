// A vCPU for the probe: two instructions in real mode, at the start of 64 KiB of memory.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <string>

#include "unique_fd.h"

namespace pagewake::probe {

// What it runs: reads the byte at 0x1000, then stops.
inline constexpr uint8_t kReadByteAndHalt[] = {0xa0, 0x00, 0x10, 0xf4};
inline constexpr uint64_t kReadsAt = 0x1000;

class Vcpu {
 public:
  enum class Exit { halted, userfault, other };

  explicit Vcpu(int vm);
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;
  ~Vcpu();

  bool valid() const { return error_.empty(); }
  const std::string& error() const { return error_; }

  // On until it exits. Every way out of two instructions is one: nothing it runs into goes on for long.
  Exit run();
  // What the last exit was, in words.
  const std::string& said() const { return said_; }
  // Of the last userfault.
  uint64_t gpa() const { return gpa_; }
  // What it has read.
  uint8_t byte() const;

 private:
  UniqueFd fd_;
  kvm_run* run_ = nullptr;
  size_t runBytes_ = 0;
  uint64_t gpa_ = 0;
  std::string error_;
  std::string said_;
};

}  // namespace pagewake::probe
