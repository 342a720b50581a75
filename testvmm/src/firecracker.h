// Firecracker's handshake (docs/protocol.md) in the forms that the agent is held to: those it must take and those it must not.
#pragma once
#include <string>

#include "memory.h"

namespace testvmm {

enum class FirecrackerForm {
  /** As the main branch sends it: page_size and page_size_kib, both in bytes. */
  both,
  pageSize,
  pageSizeKib,
  /** page_size_kib says another size than page_size. */
  contradicting,
  moreFields,
  newline,
  /** In two pieces, the descriptor with the first. */
  inParts,
  /** The secret-free branch's word in two pieces, or in one with the array; apf.socket tried before. */
  wordInParts,
  wordJoined,
  apfSocket,
  /** The process that connected is not the one whose memory it is. */
  byAnother,
  // From here on the agent does not take it.
  noUserfaultfd,
  twoDescriptors,
  /** Ends in the middle, with the descriptor already sent. */
  half,
  // The secret-free branch's: a region without gpa_start, the other is_guest_memfd, exitless faults, frames.
  fieldsMissing,
  wrongKind,
  exitless,
  framed,
};

inline bool agentTakes(FirecrackerForm form) { return form < FirecrackerForm::noUserfaultfd; }

/** The text of the main branch. */
std::string firecrackerJson(const GuestMemory &memory, const Layout &layout, FirecrackerForm form);
/** The array of the secret-free branch, before its word. */
std::string secretFreeJson(const GuestMemory &memory, const Layout &layout, FirecrackerForm form);

namespace secret_free {
inline constexpr const char *kWord = "no_exitless_apf", *kExitlessWord = "exitless_apf:2";
/** Descriptors that come with `kExitlessWord`. */
inline constexpr size_t kExitlessDescriptors = 6;
/** A request of a newer build: a little-endian length, a body that is no JSON. */
inline constexpr char kFrame[] = "\x05\x00\x00\x00\x01\x80\x10\x00\x02";
} // namespace secret_free

} // namespace testvmm
