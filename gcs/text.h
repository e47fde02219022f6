// Readable text of arguments and results, for the materialised tables. Pure.
#pragma once
#include <string>

#include "libray/lineage/reader.h"

namespace ray::gcs {

inline constexpr size_t kTextMax = 200;  // bytes of text per value, about

// One MessagePack value as JSON, with bin and extensions as strings of hex ("0x…", "ext 0x…"). At most
// about `limit` bytes; what is left out shows as "…".
std::string to_text(std::string_view value, size_t limit);
// Text in quotes, with JSON's escapes; cut: "…" before the closing quote.
void quote(std::string* out, std::string_view s, bool cut);
void append_hex(std::string* out, std::string_view bytes);

// MessagePack as JSON; raw bytes as a string if they are printable, as a signed integer if they are 1, 2, 4
// or 8 bytes, else as hex; other formats as hex.
void append_value(std::string* out, uint32_t format, std::string_view bytes);
// "1, "two", <48 hex digits of a ref>".
void append_args(std::string* out, const lineage::SubmitView& submit);
// False when the value was not journaled (too large).
bool append_result(std::string* out, const lineage::ResultView& result);

}  // namespace ray::gcs
