// How a function or class that is known by its name is published (ray_function_named): the MessagePack array
// ["libray-name", container, member]. Private definitions of bindings begin otherwise (a pickle with 0x80, Java's
// serialisation with 0xac 0xed). Pure.
#pragma once
#include <string>
#include <string_view>

#include "libray/wire/msgpack.h"

namespace ray::wire {

inline constexpr std::string_view kNamed = "\x93\xablibray-name";  // an array of three, and the first of them

inline std::string pack_named(std::string_view container, std::string_view member) {
  Packer w;
  w.array(3).str("libray-name").str(container).str(member);
  return std::move(w.bytes());
}

inline bool is_named(std::string_view definition) { return definition.substr(0, kNamed.size()) == kNamed; }

}  // namespace ray::wire
