// SHA-256 (FIPS 180-4), by Mbed TLS: for keys that stand for what they are made of, so that nobody finds two texts with
// one key. Not for speed: some hundred MB/s. Any thread.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace ray {

std::array<uint8_t, 32> sha256(std::string_view text);
// Its first eight bytes, big endian.
uint64_t sha256_key(std::string_view text);
// HMAC (RFC 2104): that whoever made it knows the key.
std::array<uint8_t, 32> hmac_sha256(std::string_view key, std::string_view text);

}  // namespace ray
