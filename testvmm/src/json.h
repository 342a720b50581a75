// Just enough JSON: objects built line by line, and flat objects read (what the VMM channel carries).
#pragma once
#include <concepts>
#include <map>
#include <string>
#include <string_view>

namespace testvmm {

std::string jsonString(std::string_view value);

/** An object under construction: `JsonObject().add("event", "done").add("pages", 7).str()`. */
class JsonObject {
public:
  JsonObject &add(std::string_view name, std::string_view value) { return raw(name, jsonString(value)); }
  JsonObject &add(std::string_view name, const char *value) { return raw(name, jsonString(value)); }
  JsonObject &add(std::string_view name, bool value) { return raw(name, value ? "true" : "false"); }
  JsonObject &add(std::string_view name, std::integral auto value) { return raw(name, std::to_string(value)); }
  /** Milliseconds with three decimals out of nanoseconds. */
  JsonObject &addMs(std::string_view name, long long ns);
  JsonObject &raw(std::string_view name, std::string_view json);
  std::string str() const { return body_.empty() ? "{}" : body_ + "}"; }

private:
  std::string body_;
};

/** An array under construction of JSON texts. */
class JsonArray {
public:
  JsonArray &raw(std::string_view json);
  std::string str() const { return body_.empty() ? "[]" : body_ + "]"; }

private:
  std::string body_;
};

/** The members of one flat object: strings unescaped, numbers, words and arrays as written. Throws Failure on what is not
 * JSON. */
std::map<std::string, std::string> parseFlatObject(std::string_view line);

} // namespace testvmm
