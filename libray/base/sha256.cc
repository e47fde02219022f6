// See sha256.h. Mbed TLS comes with NNG, whose static library needs it.
#include "libray/base/sha256.h"

#include <mbedtls/md.h>
#include <mbedtls/sha256.h>
#include <mbedtls/version.h>

namespace ray {

std::array<uint8_t, 32> sha256(std::string_view text) {
  std::array<uint8_t, 32> digest;
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  // The last argument: not SHA-224. It fails only where hardware does the work, which Mbed TLS has to be built for.
#if MBEDTLS_VERSION_MAJOR >= 3
  const int failed = mbedtls_sha256(bytes, text.size(), digest.data(), 0);
#else
  const int failed = mbedtls_sha256_ret(bytes, text.size(), digest.data(), 0);
#endif
  if (failed) __builtin_trap();  // a key of nothing in particular would stand for some other function
  return digest;
}

std::array<uint8_t, 32> hmac_sha256(std::string_view key, std::string_view text) {
  std::array<uint8_t, 32> digest;
  const auto* k = reinterpret_cast<const unsigned char*>(key.data());
  const auto* t = reinterpret_cast<const unsigned char*>(text.data());
  if (mbedtls_md_hmac(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), k, key.size(), t, text.size(), digest.data()))
    __builtin_trap();  // out of memory for a few hundred bytes: nobody may go on without a proof
  return digest;
}

uint64_t sha256_key(std::string_view text) {
  const auto digest = sha256(text);
  uint64_t key = 0;
  for (int i = 0; i < 8; ++i) key = key << 8 | digest[static_cast<size_t>(i)];
  return key;
}

}  // namespace ray
