// The ledgers of this process by number, so that worker threads can share one: a JavaScript object cannot cross threads.
#pragma once

#include <cstdint>
#include <memory>

#include "ledger.h"

namespace pagewake::ledgers {

// A number that was never used before in this process. The registry does not keep the ledger alive: its handles do.
uint32_t add(const std::shared_ptr<Ledger>& ledger);
// Null where it never was, or its last handle is closed.
std::shared_ptr<Ledger> find(uint32_t id);
// Forgets ledgers that nobody holds any more.
void sweep();

}  // namespace pagewake::ledgers
