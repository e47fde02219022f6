// See demands.h.
#include "libray/node/core/demands.h"

#include "libray/wire/cursor.h"

namespace ray::node {

Status read_resources(std::string_view bytes, std::map<std::string, double>* out, std::string* env) {
  auto parsed = wire::parse_resources(bytes, env);
  if (!parsed.ok()) return parsed.status();
  *out = std::move(*parsed);
  return Status();
}

Status read_placement(std::string_view resources, Placement* out) {
  *out = Placement{};
  if (resources.empty()) return Status();
  wire::Cursor r(resources);
  uint32_t n = r.map();
  for (uint32_t i = 0; i < n && r.ok(); ++i) {
    if (r.text() != wire::kPlacement) {
      r.skip();
      continue;
    }
    uint32_t m = r.map();
    for (uint32_t k = 0; k < m && r.ok(); ++k) {
      std::string key = r.text();
      if (key == "group") out->group = r.id();
      else if (key == "bundle") out->bundle = static_cast<int32_t>(r.int64());
      else if (key == "node") out->node = r.id();
      else if (key == "soft") out->soft = r.boolean();
      else if (key == "never") out->never = r.text();
      else if (key == "here") out->here = r.boolean();
      else r.skip();
    }
  }
  if (!r.ok()) return error(RAY_INVALID_ARGUMENT, "the placement is malformed");
  return Status();
}

}  // namespace ray::node
