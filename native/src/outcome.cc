#include "outcome.h"

#include <string.h>
#include <uv.h>

#include <cerrno>

namespace pagewake {

Outcome stopped(Call call, int error, uint64_t bytes) {
  switch (error) {
    case EEXIST:
      return {OutcomeKind::present, bytes, 0};
    case EAGAIN:
      return {OutcomeKind::again, bytes, 0};
    case ENOENT:
      return {OutcomeKind::unmapped, bytes, 0};
    case ESRCH:
      return {OutcomeKind::exited, bytes, 0};
    case ENOMEM:
      // UFFDIO_UNREGISTER says ENOMEM, not ESRCH, where the address space is gone.
      return {call == Call::unregister ? OutcomeKind::exited : OutcomeKind::noMemory, bytes, 0};
    case ENOSPC:
    case EDQUOT:
      return {OutcomeKind::noMemory, bytes, 0};
    case EFAULT:
      return {OutcomeKind::absent, bytes, 0};
    default:
      return {OutcomeKind::refused, bytes, error};
  }
}

double encode(const Outcome& outcome) {
  return static_cast<double>(outcome.bytes * 2048 + static_cast<uint64_t>(outcome.error & 0xff) * 8 +
                             static_cast<uint64_t>(outcome.kind));
}

const char* errno_name(int error) {
#ifdef __GLIBC__
  if (const char* name = strerrorname_np(error)) return name;
#endif
  return uv_err_name(uv_translate_sys_error(error));
}

}  // namespace pagewake
