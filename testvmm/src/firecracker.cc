#include "firecracker.h"

#include "json.h"

namespace testvmm {
namespace {
constexpr uint64_t kOtherPageBytes[] = {2ull << 20, 4096};
}

std::string firecrackerJson(const GuestMemory &memory, const Layout &layout, FirecrackerForm form) {
  const uint64_t pageBytes = memory.pageBytes();
  const bool contradicting = form == FirecrackerForm::contradicting;
  // In bytes despite its name, as there.
  const uint64_t pageKib = contradicting ? kOtherPageBytes[pageBytes == kPageBytes ? 0 : 1] : pageBytes;
  JsonArray regions;
  for (size_t i = 0; i < memory.regions(); i++) {
    JsonObject region;
    region.add("base_host_virt_addr", reinterpret_cast<uintptr_t>(memory.region(i))).add("size", memory.regionBytes());
    region.add("offset", layout.offset(i, 0));
    if (form != FirecrackerForm::pageSizeKib) region.add("page_size", pageBytes);
    if (form != FirecrackerForm::pageSize) region.add("page_size_kib", pageKib);
    if (form == FirecrackerForm::moreFields)
      region.add("gpa_start", layout.gpa(i)).add("is_new", true).raw("more", "{\"a\":[1,null]}");
    regions.raw(region.str());
  }
  const std::string text = regions.str();
  if (form == FirecrackerForm::half) return text.substr(0, text.size() / 2);
  return form == FirecrackerForm::newline ? text + "\n" : text;
}

} // namespace testvmm
