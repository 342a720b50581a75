#include "json.h"

#include "failure.h"

namespace testvmm {

std::string jsonString(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += text("\\u%04x", c);
    } else {
      out += c;
    }
  }
  return out + '"';
}

JsonObject &JsonObject::raw(std::string_view name, std::string_view json) {
  body_ += body_.empty() ? "{" : ",";
  body_ += jsonString(name);
  body_ += ':';
  body_ += json;
  return *this;
}

JsonObject &JsonObject::addMs(std::string_view name, long long ns) {
  return raw(name, text("%.3f", static_cast<double>(ns) / 1e6));
}

JsonArray &JsonArray::raw(std::string_view json) {
  body_ += body_.empty() ? "[" : ",";
  body_ += json;
  return *this;
}

namespace {

class Parser {
public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::map<std::string, std::string> object() {
    std::map<std::string, std::string> out;
    expect('{');
    if (peek() == '}') return out;
    for (;;) {
      const std::string name = string();
      expect(':');
      out[name] = value();
      if (peek() == '}') return out;
      expect(',');
    }
  }

private:
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r')) at_++;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(char c) {
    if (peek() != c)
      fail("not a flat JSON object at byte %zu: %.*s", at_, static_cast<int>(text_.size()), text_.data());
    at_++;
  }
  std::string value() {
    if (peek() == '"') return string();
    const size_t start = at_;
    if (text_[at_] == '[') return array();
    while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '}') {
      if (text_[at_] == '{' || text_[at_] == '[')
        fail("a nested value is not expected: %.*s", static_cast<int>(text_.size()), text_.data());
      at_++;
    }
    return std::string(text_.substr(start, at_ - start));
  }
  /** To the bracket that ends it, as written. */
  std::string array() {
    const size_t start = at_;
    for (int depth = 0; at_ < text_.size(); at_++) {
      if (text_[at_] == '[') depth++;
      if (text_[at_] == '"') skipString();
      if (at_ < text_.size() && text_[at_] == ']' && --depth == 0) return std::string(text_.substr(start, ++at_ - start));
    }
    fail("an array without an end: %.*s", static_cast<int>(text_.size()), text_.data());
  }
  /** To its closing quote. */
  void skipString() {
    for (at_++; at_ < text_.size() && text_[at_] != '"'; at_++)
      if (text_[at_] == '\\') at_++;
  }
  std::string string() {
    expect('"');
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      char c = text_[at_++];
      if (c == '\\' && at_ < text_.size()) c = escape();
      out += c;
    }
    expect('"');
    return out;
  }
  /** Non-ASCII \u escapes become '?': messages are shown to people, never compared. */
  char escape() {
    const char c = text_[at_++];
    switch (c) {
    case 'n': return '\n';
    case 't': return '\t';
    case 'r': return '\r';
    case 'b': return '\b';
    case 'f': return '\f';
    case 'u': at_ += 4; return '?';
    default: return c;
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

} // namespace

std::map<std::string, std::string> parseFlatObject(std::string_view line) { return Parser(line).object(); }

} // namespace testvmm
