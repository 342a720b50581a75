// What this kernel can do, found by doing it.
#pragma once

#include <string>
#include <vector>

namespace pagewake::probe {

struct Capability {
  const char* name;
  bool available;
  std::string detail;  // what was done and what it answered
};

// Each appends its rows, in the order in which they are printed. They leave nothing behind and end by themselves.
void userfaultfd(std::vector<Capability>& rows);
void memory_files(std::vector<Capability>& rows);
void kvm(std::vector<Capability>& rows);

// "what: done" or "what: ENOENT".
std::string answer(const std::string& what, int error);

}  // namespace pagewake::probe
