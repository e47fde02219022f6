// SHA-256 against the examples of FIPS 180-4 and other known digests, and around the ends of its blocks.
#include "libray/base/sha256.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace ray {
namespace {

std::string hex(std::string_view text) {
  static const char digits[] = "0123456789abcdef";
  std::string out;
  for (uint8_t b : sha256(text)) out += {digits[b >> 4], digits[b & 15]};
  return out;
}

TEST(Sha256, KnownDigests) {
  EXPECT_EQ(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256_key("abc"), 0xba7816bf8f01cfeau);
}

TEST(Sha256, EveryLengthAroundABlock) {
  std::set<std::string> seen;
  for (size_t n = 0; n <= 200; ++n) EXPECT_TRUE(seen.insert(hex(std::string(n, 'x'))).second) << n;
}

}  // namespace
}  // namespace ray
