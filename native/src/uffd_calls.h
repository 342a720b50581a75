// The userfaultfd calls, without JavaScript.
#pragma once

#include <cstdint>

#include "outcome.h"
#include "unique_fd.h"

struct uffd_msg;

namespace pagewake::uffd {

// Not open, with errno set, where the system refuses. Closed on exec, non-blocking.
UniqueFd open_by_syscall(bool userModeOnly);
UniqueFd open_by_device(bool userModeOnly);

Outcome copy(int fd, uint64_t address, const void* source, uint64_t length, bool wake);
Outcome zeropage(int fd, uint64_t address, uint64_t length);
Outcome continue_pages(int fd, uint64_t address, uint64_t length);
Outcome poison(int fd, uint64_t address, uint64_t length);
Outcome wake(int fd, uint64_t address, uint64_t length);
Outcome unregister(int fd, uint64_t address, uint64_t length);

// Whole messages read without blocking: their number, or a negative errno (-EAGAIN where there is none).
inline constexpr int kBatch = 64;
int read_messages(int fd, ::uffd_msg* into, int capacity);

}  // namespace pagewake::uffd
