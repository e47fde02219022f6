// The signature parser: what parses prints and parses again; errors are one line.
#include "fuzz/fuzz.h"
#include "libray/ffi/ffi.h"

FUZZ_TARGET(signature) {
  auto s = ray::ffi::Signature::parse(input);
  if (!s.ok()) {
    FUZZ_CHECK(s.status().code() == RAY_INVALID_ARGUMENT);
    FUZZ_CHECK(s.status().message().find('\n') == std::string::npos);
    FUZZ_CHECK(s.status().message().find("(character ") != std::string::npos);
    return;
  }
  auto again = ray::ffi::Signature::parse(s->text());
  FUZZ_CHECK(again.ok());
  FUZZ_CHECK(again->text() == s->text());
  FUZZ_CHECK(again->args == s->args && again->result == s->result);
}
