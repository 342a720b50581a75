#include "firecracker.h"

#include "json.h"

namespace testvmm {
namespace {

constexpr uint64_t kOtherPageBytes[] = {2ull << 20, 4096};

std::string asSent(const std::string &text, FirecrackerForm form) {
  if (form == FirecrackerForm::half) return text.substr(0, text.size() / 2);
  return form == FirecrackerForm::newline ? text + "\n" : text;
}

JsonObject regionOf(const GuestMemory &memory, const Layout &layout, FirecrackerForm form, size_t index) {
  const uint64_t pageBytes = memory.pageBytes();
  const bool contradicting = form == FirecrackerForm::contradicting;
  // In bytes despite its name, as there.
  const uint64_t pageKib = contradicting ? kOtherPageBytes[pageBytes == kPageBytes ? 0 : 1] : pageBytes;
  JsonObject region;
  region.add("base_host_virt_addr", reinterpret_cast<uintptr_t>(memory.region(index)))
      .add("size", memory.regionBytes())
      .add("offset", layout.offset(index, 0));
  if (form != FirecrackerForm::pageSizeKib) region.add("page_size", pageBytes);
  if (form != FirecrackerForm::pageSize) region.add("page_size_kib", pageKib);
  return region;
}

} // namespace

std::string firecrackerJson(const GuestMemory &memory, const Layout &layout, FirecrackerForm form) {
  JsonArray regions;
  for (size_t i = 0; i < memory.regions(); i++) {
    JsonObject region = regionOf(memory, layout, form, i);
    if (form == FirecrackerForm::moreFields)
      region.add("gpa_start", layout.gpa(i)).add("is_new", true).raw("more", "{\"a\":[1,null]}");
    regions.raw(region.str());
  }
  return asSent(regions.str(), form);
}

std::string secretFreeJson(const GuestMemory &memory, const Layout &layout, FirecrackerForm form) {
  JsonArray regions;
  for (size_t i = 0; i < memory.regions(); i++) {
    JsonObject region = regionOf(memory, layout, form, i);
    if (form != FirecrackerForm::fieldsMissing) region.add("gpa_start", layout.gpa(i));
    region.add("is_guest_memfd",
               (memory.kind() == MemoryKind::guestMemfd) != (form == FirecrackerForm::wrongKind));
    if (form == FirecrackerForm::moreFields) region.raw("more", "{\"a\":[1,null]}");
    regions.raw(region.str());
  }
  return asSent(regions.str(), form);
}

} // namespace testvmm
