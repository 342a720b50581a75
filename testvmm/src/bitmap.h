// The bitmap of stage-2 faults that a destination hands over beside its memory file: bit n is page n of that file, and
// while it is set a stage-2 fault on the page exits. It is filled once, before any vCPU runs; afterwards bits only go
// from 1 to 0.
#pragma once
#include "fd.h"

namespace testvmm {

class UserfaultBitmap {
public:
  /** All zeros, and sealed: who maps it must not fear that it shrinks. */
  explicit UserfaultBitmap(uint64_t pages);

  int file() const { return file_.get(); }
  /** The byte of page `first`, a multiple of 8. KVM reads from here as long as the slots live. */
  uintptr_t addressOf(uint64_t first) const { return reinterpret_cast<uintptr_t>(mapping_.data()) + first / 8; }
  void fill();
  /** Once it is clear, the page's content is seen. */
  bool isSet(uint64_t page) const;
  uint64_t countSet() const;

private:
  const uint64_t pages_;
  Fd file_;
  Mapping mapping_;
};

} // namespace testvmm
