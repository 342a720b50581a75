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
  /** The process that connected is not the one whose memory it is. */
  byAnother,
  // From here on the agent does not take it.
  noUserfaultfd,
  twoDescriptors,
  /** Ends in the middle, with the descriptor already sent. */
  half,
};

inline bool agentTakes(FirecrackerForm form) { return form < FirecrackerForm::noUserfaultfd; }

std::string firecrackerJson(const GuestMemory &memory, const Layout &layout, FirecrackerForm form);

} // namespace testvmm
