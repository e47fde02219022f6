// Dynamic C calls: any symbol of a shared library becomes a function that takes and gives
// MessagePack values (ray.h section 13).
//
// Who: the C API checks signatures with Signature::parse when a symbol is defined; the worker loop
// opens a Symbol when a task first needs it and calls it for every task. Threads: any; a Symbol is
// immutable. Invariants: every number is checked against the range of its C type before the call;
// the callee sees its own aligned copies of str, bytes and ptr_len arguments, so it cannot damage
// shared memory by writing through them; libraries stay loaded for the life of the process.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libray/base/status.h"
#include "libray/wire/msgpack.h"

namespace ray::ffi {

enum class CType : uint8_t {
  kVoid,
  kBool,
  kI8,
  kU8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kF32,
  kF64,
  kStr,     // const char*, nul-terminated
  kBytes,   // const void*; nil = NULL
  kPtrLen,  // const void* and size_t: two C arguments for one value; nil = NULL, 0
};
const char* name_of(CType type);

inline constexpr size_t kMaxArgs = 64;

struct Signature {
  CType result = CType::kVoid;
  std::vector<CType> args;

  // "f64(i32, bytes)". RAY_INVALID_ARGUMENT points at the character (from 0) that is wrong.
  static Result<Signature> parse(std::string_view text);
  std::string text() const;  // canonical: "f64(i32,bytes)"
};

struct ArgView {  // one MessagePack value, or, when `is_raw`, bytes as they are
  const void* data;
  size_t size;
  bool is_raw = false;
};

class Symbol {
 public:
  // library: path or soname; empty = the C library and what the program itself has loaded.
  // RAY_NOT_FOUND = no such library or function, RAY_INVALID_ARGUMENT = bad signature.
  static Result<std::shared_ptr<const Symbol>> open(const std::string& library,
                                                    const std::string& symbol,
                                                    const std::string& signature);
  // How a symbol travels in the function table: MessagePack [library, symbol, signature].
  static std::string pack_definition(std::string_view library, std::string_view symbol,
                                     std::string_view signature);
  static Result<std::shared_ptr<const Symbol>> open_definition(std::string_view definition);

  virtual ~Symbol() = default;
  virtual const Signature& signature() const = 0;
  // Appends one MessagePack value to *result. RAY_INVALID_ARGUMENT names the argument (from 0), the
  // type it must have and the value given; then the function was not called.
  virtual Status call(const ArgView* args, size_t n, wire::Writer* result) const = 0;
};

}  // namespace ray::ffi
