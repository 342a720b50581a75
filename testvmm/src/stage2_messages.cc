#include "stage2_messages.h"

#include "failure.h"
#include "json.h"

namespace testvmm {
namespace {

JsonObject &addFault(JsonObject &out, const Stage2Request &request, const Layout &layout, bool withGpa) {
  const auto &[id, fault] = request;
  out.add("id", id).add("vcpu", fault.vcpu).add("offset", layout.offset(fault.region, fault.page));
  if (withGpa) out.add("gpa", layout.gpa(fault.region) + fault.page * kPageBytes);
  return out.add("flags", fault.flags);
}

uint64_t number(const std::map<std::string, std::string> &object, const char *name) {
  const auto member = object.find(name);
  if (member == object.end() || member->second.empty() ||
      member->second.find_first_not_of("0123456789") != std::string::npos)
    fail("an answer to a stage-2 fault has no number %s", name);
  return std::strtoull(member->second.c_str(), nullptr, 10);
}

/** The end of the flat object at the front, behind its brace; npos: not there yet. The answers have no strings. */
size_t endOfObject(std::string_view text) {
  const size_t brace = text.find('}');
  return brace == std::string_view::npos ? brace : brace + 1;
}

} // namespace

std::string requestLine(const std::vector<Stage2Request> &requests, const Layout &layout, bool withGpa) {
  JsonObject out;
  if (requests.size() == 1) {
    out.add("type", "stage2_fault");
    return addFault(out, requests[0], layout, withGpa).str() + "\n";
  }
  JsonArray faults;
  for (const Stage2Request &request : requests) {
    JsonObject one;
    faults.raw(addFault(one, request, layout, withGpa).str());
  }
  return out.add("type", "stage2_faults").raw("faults", faults.str()).str() + "\n";
}

std::string requestObjects(const std::vector<Stage2Request> &requests, const Layout &layout) {
  std::string out;
  for (const auto &[id, fault] : requests)
    out += JsonObject()
               .add("vcpu", fault.vcpu)
               .add("offset", layout.offset(fault.region, fault.page))
               .add("flags", fault.flags)
               .raw("token", "null")
               .str();
  return out;
}

std::vector<Stage2Answer> answersOf(const std::string &line) {
  std::vector<Stage2Answer> out;
  const auto add = [&](const std::map<std::string, std::string> &object) {
    out.push_back({number(object, "id"), 0, number(object, "offset"), number(object, "len")});
  };
  const auto message = parseFlatObject(line);
  const auto pages = message.find("pages");
  if (pages == message.end()) {
    add(message);
    return out;
  }
  // "[{…},{…}]"
  std::string_view rest = pages->second;
  while (rest.size() > 2) {
    rest.remove_prefix(1);
    const size_t end = endOfObject(rest);
    if (end == std::string_view::npos) fail("all_resolved: its pages are cut");
    add(parseFlatObject(rest.substr(0, end)));
    rest.remove_prefix(end);
  }
  return out;
}

std::vector<Stage2Answer> takeAnswers(std::string &stream) {
  std::vector<Stage2Answer> out;
  for (size_t end; (end = endOfObject(stream)) != std::string::npos; stream.erase(0, end)) {
    const auto object = parseFlatObject(std::string_view(stream).substr(0, end));
    const auto zero = object.find("zero"), token = object.find("token");
    if (zero == object.end() || zero->second != "false" || token == object.end() || token->second != "null" ||
        object.find("flags") == object.end())
      fail("an answer is not as the secret-free branch reads it: %s", stream.substr(0, end).c_str());
    out.push_back({std::nullopt, number(object, "vcpu"), number(object, "offset"), number(object, "len")});
  }
  if (!stream.empty() && stream[0] != '{') fail("between two answers something is: %s", stream.c_str());
  return out;
}

} // namespace testvmm
