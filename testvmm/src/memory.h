// Guest RAM: one memory file (or anonymous memory), mapped region by region. Offsets in the file equal offsets in the
// image.
#pragma once
#include <vector>

#include "config.h"
#include "fd.h"

namespace testvmm {

class GuestMemory {
public:
  /** `vm`: the KVM VM, which creates a guest_memfd; -1 without KVM. Throws Failure saying what is missing. */
  GuestMemory(const VmConfig &config, const Layout &layout, int vm);

  MemoryKind kind() const { return kind_; }
  /** The memory file; -1 for anonymous memory. */
  int file() const { return file_.get(); }
  uint64_t pageBytes() const { return pageBytes_; }
  uint8_t *region(uint64_t index) const { return regions_[index].data(); }
  uint8_t *page(uint64_t region, uint64_t page) const { return regions_[region].data() + page * kPageBytes; }
  size_t regions() const { return regions_.size(); }
  uint64_t regionBytes() const { return regions_[0].bytes(); }
  /** Gives pages back: they read as zeros from now on. Blocks until a userfaultfd with EVENT_REMOVE has had the event
   * read. */
  void giveBack(uint64_t region, uint64_t page) const;
  /** Makes the page at this offset of the memory file a page of zeros if it is absent; one that is there stays. */
  void allocate(uint64_t offset) const;

private:
  MemoryKind kind_;
  uint64_t pageBytes_;
  Fd file_;
  std::vector<Mapping> regions_;
};

/** Which pages of the image the memory file holds, found without touching one. Empty where the file cannot tell. */
class DataMap {
public:
  explicit DataMap(const GuestMemory &memory);
  bool known() const { return known_; }
  bool holds(uint64_t imagePage) const { return !known_ || bits_[imagePage]; }

private:
  bool known_ = false;
  std::vector<bool> bits_;
};

} // namespace testvmm
