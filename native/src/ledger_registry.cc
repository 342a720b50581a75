#include "ledger_registry.h"

#include <map>
#include <mutex>

namespace pagewake::ledgers {

namespace {

struct Registry {
  std::mutex mutex;
  std::map<uint32_t, std::weak_ptr<Ledger>> ledgers;
  uint32_t last = 0;
};

// Process-wide on purpose: sharing across environments is what it is for. Never destroyed, because a worker may
// outlive the exit handlers.
Registry& registry() {
  static auto* instance = new Registry();
  return *instance;
}

}  // namespace

uint32_t add(const std::shared_ptr<Ledger>& ledger) {
  Registry& all = registry();
  const std::scoped_lock lock(all.mutex);
  all.ledgers[++all.last] = ledger;
  return all.last;
}

std::shared_ptr<Ledger> find(uint32_t id) {
  Registry& all = registry();
  const std::scoped_lock lock(all.mutex);
  const auto found = all.ledgers.find(id);
  return found == all.ledgers.end() ? nullptr : found->second.lock();
}

void sweep() {
  Registry& all = registry();
  const std::scoped_lock lock(all.mutex);
  std::erase_if(all.ledgers, [](const auto& entry) { return entry.second.expired(); });
}

}  // namespace pagewake::ledgers
