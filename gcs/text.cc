// See text.h.
#include "gcs/text.h"

#include "gcs/msg.h"
#include "ray.h"

namespace ray::gcs {

static void append_raw(std::string* out, std::string_view bytes) {
  std::string_view cut = bytes.substr(0, kTextMax);
  while (cut.size() < bytes.size() && !cut.empty() &&
         (static_cast<unsigned char>(bytes[cut.size()]) >> 6) == 2)
    cut.remove_suffix(1);
  if (is_printable_utf8(cut)) return quote(out, cut, cut.size() < bytes.size());
  if (bytes.size() == 8 || bytes.size() == 4 || bytes.size() == 2 || bytes.size() == 1) {
    int64_t v = 0;
    std::memcpy(&v, bytes.data(), bytes.size());
    int shift = 64 - 8 * static_cast<int>(bytes.size());
    v = static_cast<int64_t>(static_cast<uint64_t>(v) << shift) >> shift;
    out->append(std::to_string(v));
    return;
  }
  out->append("0x");
  append_hex(out, bytes.substr(0, 64));
  if (bytes.size() > 64) out->append("…");
}

void append_value(std::string* out, uint32_t format, std::string_view bytes) {
  if (format == RAY_FMT_RAW) return append_raw(out, bytes);
  if (format == RAY_FMT_MSGPACK) {
    out->append(to_text(bytes, kTextMax));
    return;
  }
  out->append("0x");
  append_hex(out, bytes.substr(0, 64));
  if (bytes.size() > 64) out->append("…");
}

void append_args(std::string* out, const lineage::SubmitView& submit) {
  bool first = true;
  for (const lineage::ArgView& a : submit.args) {
    if (!first) out->append(", ");
    first = false;
    if (out->size() > 4 * kTextMax) {
      out->append("…");
      return;
    }
    if (a.is_ref) append_hex(out, a.bytes);
    else append_value(out, a.format, a.bytes);
  }
}

bool append_result(std::string* out, const lineage::ResultView& result) {
  if (result.bytes.empty() && result.fixed.size > 0) return false;
  append_value(out, result.fixed.format, result.bytes);
  return true;
}

}  // namespace ray::gcs
