// Signatures of dynamic C calls; see ffi.h. Grammar, with blanks allowed between tokens:
//   signature = type "(" [ "void" | type { "," type } ] ")"
#include <cstring>

#include "libray/ffi/ffi.h"

namespace ray::ffi {
namespace {

constexpr const char* kNames[] = {"void", "bool", "i8",  "u8",  "i16", "u16",   "i32",    "u32",
                                  "i64",  "u64",  "f32", "f64", "str", "bytes", "ptr_len"};

// What people write by habit. `long` is 64 bits wide on every platform that libray runs on.
struct Habit {
  const char* theirs;
  const char* ours;
};
constexpr Habit kHabits[] = {
    {"int", "i32"},      {"unsigned", "u32"}, {"uint", "u32"},      {"long", "i64"},
    {"short", "i16"},    {"char", "i8"},      {"float", "f32"},     {"double", "f64"},
    {"size_t", "u64"},   {"int8_t", "i8"},    {"uint8_t", "u8"},    {"int16_t", "i16"},
    {"uint16_t", "u16"}, {"int32_t", "i32"},  {"uint32_t", "u32"},  {"int64_t", "i64"},
    {"uint64_t", "u64"}, {"string", "str"},   {"pointer", "bytes"}, {"ptr", "bytes"},
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Status parse(Signature* out) {
    RAY_TRY(type("a result type", &out->result));
    if (out->result == CType::kBytes || out->result == CType::kPtrLen)
      return fail(token_at_, "'%s' cannot be a result: its length is unknown",
                  name_of(out->result));
    RAY_TRY(expect('('));
    blanks();
    if (peek() == ')') return finish();
    for (;;) {
      CType t;
      RAY_TRY(type("an argument type", &t));
      if (t == CType::kVoid) {
        if (!out->args.empty() || peek() != ')')
          return fail(token_at_, "'void' cannot be an argument; write '()' for none");
        return finish();
      }
      if (out->args.size() == kMaxArgs) return fail(token_at_, "more than %zu arguments", kMaxArgs);
      out->args.push_back(t);
      if (peek() == ')') return finish();
      if (peek() != ',') return fail(at_, "expected ',' or ')', found %s", found().c_str());
      ++at_;
    }
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void blanks() {
    while (peek() == ' ' || peek() == '\t') ++at_;
  }
  std::string found() const {
    if (at_ >= text_.size()) return "the end";
    auto c = static_cast<unsigned char>(text_[at_]);
    return c > 0x20 && c < 0x7f ? strprintf("'%c'", c) : strprintf("byte 0x%02x", c);
  }
  Status expect(char c) {
    if (peek() != c) return fail(at_, "expected '%c', found %s", c, found().c_str());
    ++at_;
    return Status();
  }
  Status finish() {
    RAY_TRY(expect(')'));
    blanks();
    if (at_ != text_.size()) return fail(at_, "nothing may follow ')', found %s", found().c_str());
    return Status();
  }

  Status type(const char* what, CType* out) {
    blanks();
    token_at_ = at_;
    auto in_word = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    };
    while (in_word(peek())) ++at_;
    std::string_view word = text_.substr(token_at_, at_ - token_at_);
    if (word.empty()) return fail(at_, "expected %s, found %s", what, found().c_str());
    for (size_t i = 0; i < std::size(kNames); ++i) {
      if (word != kNames[i]) continue;
      *out = static_cast<CType>(i);
      blanks();
      return Status();
    }
    std::string shown(word.substr(0, 32));
    for (const Habit& h : kHabits)
      if (word == h.theirs)
        return fail(token_at_, "unknown type '%s': write '%s'", shown.c_str(), h.ours);
    return fail(token_at_,
                "unknown type '%s'; types are void bool i8 u8 i16 u16 i32 u32 i64 u64 f32 f64 str "
                "bytes ptr_len",
                shown.c_str());
  }

  Status fail(size_t at, const char* format, ...) __attribute__((format(printf, 3, 4))) {
    char why[256];
    va_list ap;
    va_start(ap, format);
    std::vsnprintf(why, sizeof why, format, ap);
    va_end(ap);
    std::string shown(text_.substr(0, 80));
    for (char& c : shown)
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
    return error(RAY_INVALID_ARGUMENT, "signature \"%s%s\": %s (character %zu)", shown.c_str(),
                 text_.size() > shown.size() ? "..." : "", why, at);
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t token_at_ = 0;  // where the last type began
};

}  // namespace

const char* name_of(CType type) {
  auto i = static_cast<size_t>(type);
  return i < std::size(kNames) ? kNames[i] : "?";
}

Result<Signature> Signature::parse(std::string_view text) {
  Signature s;
  RAY_TRY(Parser(text).parse(&s));
  return s;
}

std::string Signature::text() const {
  std::string s = name_of(result);
  s += '(';
  for (size_t i = 0; i < args.size(); ++i) {
    if (i > 0) s += ',';
    s += name_of(args[i]);
  }
  return s + ')';
}

}  // namespace ray::ffi
