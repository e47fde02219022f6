// Packed values and packed errors: every view lies within the image; what was packed unpacks.
#include "libray/wire/packed.h"

#include <algorithm>
#include <memory>

#include "fuzz/fuzz.h"

using namespace ray::wire;

FUZZ_TARGET(packed) {
  auto image = std::make_unique<uint8_t[]>(input.size());
  std::memcpy(image.get(), input.data(), input.size());
  const uint8_t *begin = image.get(), *end = begin + input.size();
  auto inside = [&](const void* p, uint64_t n) {
    auto* at = static_cast<const uint8_t*>(p);
    return at >= begin && at <= end && n <= static_cast<uint64_t>(end - at);
  };
  PackedView v;
  if (unpack(image.get(), input.size(), &v)) {
    FUZZ_CHECK(inside(v.data, v.size));
    FUZZ_CHECK(inside(v.refs, sizeof(PackedRef) * uint64_t{v.n_refs}));
    for (const ray_bytes& b : v.oob) FUZZ_CHECK(inside(b.data, b.size));
    for (uint32_t i = 0; i < v.n_refs; ++i) (void)v.ref(i).id.hex();
  }
  ray_code code = RAY_OK;
  uint32_t format = 0;
  std::string message, payload;
  if (unpack_error(image.get(), input.size(), &code, &message, &format, &payload)) {
    std::string again = pack_error(code, message, format, payload);
    ray_code code2 = RAY_OK;
    uint32_t format2 = 0;
    std::string message2, payload2;
    FUZZ_CHECK(unpack_error(again.data(), again.size(), &code2, &message2, &format2, &payload2));
    FUZZ_CHECK(code2 == code && format2 == format && message2 == message && payload2 == payload);
  }
}
