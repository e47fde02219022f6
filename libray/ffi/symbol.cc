// Opening and calling symbols through libffi; see ffi.h.
#include <dlfcn.h>
#include <elf.h>
#include <ffi.h>
#include <link.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "libray/ffi/ffi.h"

namespace ray::ffi {
namespace {

// Copies of str and bytes arguments, alive during one call. Small ones come from the stack.
class Scratch {
 public:
  // 64-byte aligned, so that any C type may lie in it; nullptr = out of memory.
  char* take(size_t size) {
    size_t padded = (size + kAlign - 1) & ~(kAlign - 1);
    if (padded < size) return nullptr;
    if (padded <= sizeof inline_ - used_) {
      char* p = inline_ + used_;
      used_ += padded;
      return p;
    }
    blocks_.emplace_back(static_cast<char*>(std::aligned_alloc(kAlign, padded)));
    return blocks_.back().get();
  }

 private:
  static constexpr size_t kAlign = 64;
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  alignas(kAlign) char inline_[1024];
  size_t used_ = 0;
  std::vector<std::unique_ptr<char, Free>> blocks_;
};

union Slot {  // one C argument; libffi reads it through a pointer, so the member's width matters
  int8_t i8;
  uint8_t u8;
  int16_t i16;
  uint16_t u16;
  int32_t i32;
  uint32_t u32;
  int64_t i64;
  uint64_t u64;
  float f32;
  double f64;
  const void* ptr;
  size_t len;
};

ffi_type* ffi_type_of(CType t) {
  switch (t) {
    case CType::kVoid: return &ffi_type_void;
    case CType::kBool: return &ffi_type_uint8;
    case CType::kI8: return &ffi_type_sint8;
    case CType::kU8: return &ffi_type_uint8;
    case CType::kI16: return &ffi_type_sint16;
    case CType::kU16: return &ffi_type_uint16;
    case CType::kI32: return &ffi_type_sint32;
    case CType::kU32: return &ffi_type_uint32;
    case CType::kI64: return &ffi_type_sint64;
    case CType::kU64: return &ffi_type_uint64;
    case CType::kF32: return &ffi_type_float;
    case CType::kF64: return &ffi_type_double;
    case CType::kStr:
    case CType::kBytes:
    case CType::kPtrLen: return &ffi_type_pointer;
  }
  return &ffi_type_void;
}

Status wrong(size_t index, CType type, const char* detail, ArgView v) {
  std::string given = wire::to_text({static_cast<const char*>(v.data), v.size}, 60);
  if (given.empty()) given = "nothing";
  return error(RAY_INVALID_ARGUMENT, "argument %zu: expected %s%s, got %s", index, name_of(type),
               detail, given.c_str());
}

template <class T>
Status to_integer(size_t index, CType type, ArgView v, T* out) {
  wire::Reader r(v.data, v.size);
  bool fits = false;
  if constexpr (std::is_signed_v<T>) {
    int64_t n;
    fits = r.int64(&n) && n >= std::numeric_limits<T>::min() && n <= std::numeric_limits<T>::max();
    if (fits) *out = static_cast<T>(n);
  } else {
    uint64_t n;
    fits = r.uint64(&n) && n <= std::numeric_limits<T>::max();
    if (fits) *out = static_cast<T>(n);
  }
  if (fits) return Status();
  std::string range =
      strprintf(" (%s to %s)", std::to_string(std::numeric_limits<T>::min()).c_str(),
                std::to_string(std::numeric_limits<T>::max()).c_str());
  return wrong(index, type, range.c_str(), v);
}

Status to_bool(size_t index, ArgView v, uint8_t* out) {
  wire::Reader r(v.data, v.size);
  bool flag;
  uint64_t n;
  if (r.boolean(&flag)) {
    *out = flag;
  } else if (r.uint64(&n) && n <= 1) {
    *out = static_cast<uint8_t>(n);
  } else {
    return wrong(index, CType::kBool, " (true, false, 0 or 1)", v);
  }
  return Status();
}

// Whether a number that was an integer is still the same.
bool holds_whole(wire::Reader r, double d) {
  int64_t n;
  if (wire::Reader s = r; s.int64(&n)) return d < 0x1p63 && static_cast<int64_t>(d) == n;
  uint64_t u;
  return !r.uint64(&u) || (d < 0x1p64 && static_cast<uint64_t>(d) == u);
}

Status to_float(size_t index, CType type, ArgView v, Slot* out) {
  wire::Reader r(v.data, v.size), whole = r;
  double d;
  if (!r.float64(&d)) return wrong(index, type, "", v);
  const double given = type == CType::kF32 ? static_cast<double>(static_cast<float>(d)) : d;
  if (std::isinf(given) && !std::isinf(d)) return wrong(index, type, " (at most 3.4028235e+38)", v);
  if (!holds_whole(whole, given)) return wrong(index, type, " (which has no such number)", v);
  if (type == CType::kF64) out->f64 = d;
  else out->f32 = static_cast<float>(d);
  return Status();
}

// The callee gets a copy of its own, with a zero byte behind it.
Status to_memory(size_t index, std::string_view bytes, Scratch* scratch, Slot* out) {
  char* copy = scratch->take(bytes.size() + 1);
  if (!copy)
    return error(RAY_OUT_OF_MEMORY, "argument %zu: cannot copy %zu bytes", index, bytes.size());
  if (!bytes.empty()) std::memcpy(copy, bytes.data(), bytes.size());
  copy[bytes.size()] = '\0';
  out[0].ptr = copy;
  out[1].len = bytes.size();
  return Status();
}

// str, bytes and ptr_len.
Status to_pointer(size_t index, CType type, ArgView v, Scratch* scratch, Slot* out) {
  wire::Reader r(v.data, v.size);
  std::string_view bytes;
  if (type == CType::kStr) {
    if (!r.str(&bytes)) return wrong(index, type, "", v);
    if (bytes.find('\0') != bytes.npos) return wrong(index, type, " without a nul byte", v);
  } else if (r.nil()) {
    out[0].ptr = nullptr;
    out[1].len = 0;
    return Status();
  } else if (!r.bytes(&bytes)) {
    return wrong(index, type, " (binary, str or nil)", v);
  }
  return to_memory(index, bytes, scratch, out);
}

// The value that is wrapped in the name of a type of another language (extension 19: [name, value]); else itself.
ArgView unnamed(ArgView v) {
  int8_t type = 0;
  uint32_t n = 0;
  std::string_view body, value;
  for (int depth = 0; depth < 8; ++depth) {
    wire::Reader r(v.data, v.size);
    if (r.peek() != wire::Type::kExt || !r.ext(&type, &body) || type != 19) break;
    wire::Reader inner(body);
    if (!inner.array(&n) || n != 2 || !inner.skip() || !inner.raw(&value) || !inner.at_end()) break;
    v = {value.data(), value.size(), false};
  }
  return v;
}

// A value that is bytes and nothing else, which C functions see at a pointer.
Status raw_to_slot(size_t index, CType type, ArgView given, Scratch* scratch, Slot* out) {
  if (type != CType::kBytes && type != CType::kPtrLen)
    return error(RAY_INVALID_ARGUMENT, "argument %zu: expected %s, got %zu bytes, which a parameter 'bytes' or 'ptr_len' "
                 "takes", index, name_of(type), given.size);
  return to_memory(index, {static_cast<const char*>(given.data), given.size}, scratch, out);
}

// Fills one slot, for ptr_len two.
Status to_slot(size_t index, CType type, ArgView given, Scratch* scratch, Slot* out) {
  if (given.is_raw) return raw_to_slot(index, type, given, scratch, out);
  if (given.size == 0) given = {"\xc0", 1};  // a value of no bytes is nil
  if (!wire::is_one_value({static_cast<const char*>(given.data), given.size}))
    return error(RAY_INVALID_ARGUMENT, "argument %zu: not one MessagePack value", index);
  const ArgView v = unnamed(given);
  switch (type) {
    case CType::kVoid: break;
    case CType::kBool: return to_bool(index, v, &out->u8);
    case CType::kI8: return to_integer(index, type, v, &out->i8);
    case CType::kU8: return to_integer(index, type, v, &out->u8);
    case CType::kI16: return to_integer(index, type, v, &out->i16);
    case CType::kU16: return to_integer(index, type, v, &out->u16);
    case CType::kI32: return to_integer(index, type, v, &out->i32);
    case CType::kU32: return to_integer(index, type, v, &out->u32);
    case CType::kI64: return to_integer(index, type, v, &out->i64);
    case CType::kU64: return to_integer(index, type, v, &out->u64);
    case CType::kF32:
    case CType::kF64: return to_float(index, type, v, out);
    case CType::kStr:
    case CType::kBytes:
    case CType::kPtrLen: return to_pointer(index, type, v, scratch, out);
  }
  return error(RAY_INTERNAL, "argument %zu has no type", index);
}

union Returned {  // libffi widens small integers to a whole register
  ffi_arg word;
  ffi_sarg signed_word;
  float f32;
  double f64;
  int64_t i64;
  uint64_t u64;
  const char* str;
};

void write_result(CType type, const Returned& r, wire::Writer* out) {
  switch (type) {
    case CType::kBool: out->boolean(static_cast<uint8_t>(r.word) != 0); return;
    case CType::kI8: out->int64(static_cast<int8_t>(r.word)); return;
    case CType::kU8: out->uint64(static_cast<uint8_t>(r.word)); return;
    case CType::kI16: out->int64(static_cast<int16_t>(r.word)); return;
    case CType::kU16: out->uint64(static_cast<uint16_t>(r.word)); return;
    case CType::kI32: out->int64(static_cast<int32_t>(r.word)); return;
    case CType::kU32: out->uint64(static_cast<uint32_t>(r.word)); return;
    case CType::kI64: out->int64(r.i64); return;
    case CType::kU64: out->uint64(r.u64); return;
    case CType::kF32: out->float64(static_cast<double>(r.f32)); return;
    case CType::kF64: out->float64(r.f64); return;
    case CType::kStr: {
      if (!r.str) break;
      std::string_view text = r.str;  // C strings need not be UTF-8; MessagePack's str must
      if (wire::is_utf8(text))
        out->str(text);
      else
        out->bin(text);
      return;
    }
    case CType::kVoid:
    case CType::kBytes:
    case CType::kPtrLen: break;
  }
  out->nil();
}

class FfiSymbol final : public Symbol {
 public:
  FfiSymbol(std::string name, Signature signature, void* address)
      : name_(std::move(name)), signature_(std::move(signature)), address_(address) {}

  Status prepare() {
    for (CType t : signature_.args) {
      types_.push_back(ffi_type_of(t));
      if (t == CType::kPtrLen)
        types_.push_back(sizeof(size_t) == 8 ? &ffi_type_uint64 : &ffi_type_uint32);
    }
    ffi_status s = ffi_prep_cif(&cif_, FFI_DEFAULT_ABI, static_cast<unsigned>(types_.size()),
                                ffi_type_of(signature_.result), types_.data());
    if (s == FFI_OK) return Status();
    return error(RAY_UNSUPPORTED, "libffi cannot call '%s' as %s", name_.c_str(),
                 signature_.text().c_str());
  }

  const Signature& signature() const override { return signature_; }

  Status call(const ArgView* args, size_t n, wire::Writer* result) const override {
    if (n != signature_.args.size())
      return error(RAY_INVALID_ARGUMENT, "%s takes %zu argument%s, got %zu", name_.c_str(),
                   signature_.args.size(), signature_.args.size() == 1 ? "" : "s", n);
    Scratch scratch;
    Slot slots[2 * kMaxArgs];
    void* pointers[2 * kMaxArgs];
    size_t used = 0;
    for (size_t i = 0; i < n; ++i) {
      Slot pair[2];
      Status s = to_slot(i, signature_.args[i], args[i], &scratch, pair);
      if (!s.ok()) return error(s.code(), "%s: %s", name_.c_str(), s.message().c_str());
      size_t count = signature_.args[i] == CType::kPtrLen ? 2 : 1;
      for (size_t k = 0; k < count; ++k, ++used) {
        slots[used] = pair[k];
        pointers[used] = &slots[used];
      }
    }
    Returned returned{};
    try {
      // ffi_call only reads the cif: the cast is what lets many threads share it.
      ffi_call(const_cast<ffi_cif*>(&cif_), reinterpret_cast<void (*)()>(address_), &returned,
               pointers);
    } catch (...) {
      return error(RAY_TASK_FAILED, "%s: threw a C++ exception", name_.c_str());
    }
    write_result(signature_.result, returned, result);
    return Status();
  }

 private:
  std::string name_;
  Signature signature_;
  void* address_;
  std::vector<ffi_type*> types_;  // cif_ points into it
  ffi_cif cif_{};
};

std::string last_dl_error() {
  const char* e = ::dlerror();
  return e ? e : "unknown reason";
}

// Whether the address is a variable: calling it would kill the process.
bool is_data(void* address) {
  Dl_info info;
  ElfW(Sym)* entry = nullptr;
  if (!::dladdr1(address, &info, reinterpret_cast<void**>(&entry), RTLD_DL_SYMENT) || !entry)
    return false;
  auto type = ELF64_ST_TYPE(entry->st_info);
  return info.dli_saddr == address && (type == STT_OBJECT || type == STT_COMMON);
}

Result<void*> find_symbol(const std::string& library, const std::string& symbol) {
  ::dlerror();
  void* handle = ::dlopen(library.empty() ? nullptr : library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle)
    return error(RAY_NOT_FOUND, "cannot load library '%s': %s", library.c_str(),
                 last_dl_error().c_str());
  void* address = ::dlsym(handle, symbol.c_str());
  if (!address && library.empty()) {  // the C standard's math functions live in a file of their own
    if (void* math = ::dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL))
      address = ::dlsym(math, symbol.c_str());
  }
  if (!address)
    return error(RAY_NOT_FOUND, "no symbol '%s' in %s%s%s", symbol.c_str(),
                 library.empty() ? "the C library" : "library '", library.c_str(),
                 library.empty() ? "" : "'");
  if (is_data(address))
    return error(RAY_INVALID_ARGUMENT, "symbol '%s' is a variable, not a function", symbol.c_str());
  return address;
}

}  // namespace

Result<std::shared_ptr<const Symbol>> Symbol::open(const std::string& library,
                                                   const std::string& symbol,
                                                   const std::string& signature) {
  auto parsed = Signature::parse(signature);
  if (!parsed.ok()) return parsed.status();
  if (symbol.empty()) return error(RAY_INVALID_ARGUMENT, "the symbol's name is empty");
  if ((library + symbol).find('\0') != std::string::npos)
    return error(RAY_INVALID_ARGUMENT, "library and symbol must not contain a nul byte");
  auto address = find_symbol(library, symbol);
  if (!address.ok()) return address.status();
  auto made = std::make_shared<FfiSymbol>(symbol, std::move(*parsed), *address);
  RAY_TRY(made->prepare());
  return std::shared_ptr<const Symbol>(std::move(made));
}

std::string Symbol::pack_definition(std::string_view library, std::string_view symbol,
                                    std::string_view signature) {
  std::string out;
  wire::Writer(&out).array(3).str(library).str(symbol).str(signature);
  return out;
}

Result<std::shared_ptr<const Symbol>> Symbol::open_definition(std::string_view definition) {
  wire::Reader r(definition);
  uint32_t n = 0;
  std::string_view library, symbol, signature;
  if (!r.array(&n) || n != 3 || !r.str(&library) || !r.str(&symbol) || !r.str(&signature) ||
      !r.at_end())
    return error(RAY_INVALID_ARGUMENT, "malformed definition of a C symbol");
  return open(std::string(library), std::string(symbol), std::string(signature));
}

}  // namespace ray::ffi
