// The daemon's definitions of functions: bounded, and nothing goes that cannot be asked for again.
#include "libray/node/function_cache.h"

#include <gtest/gtest.h>

namespace ray::node {
namespace {

TEST(FunctionCache, WhatIsStoredGoesLeastRecentlyUsedFirst) {
  FunctionCache c;
  const std::string definition(1 << 20, 'd');
  const uint64_t room = FunctionCache::kBytes / definition.size();
  for (uint64_t k = 0; k < 10 * room; ++k) {
    ASSERT_TRUE(c.add(k, definition));
    c.stored(k);
    ASSERT_NE(c.find(0), nullptr);  // used all the time
    ASSERT_NE(c.find(k), nullptr);
    ASSERT_LE(c.bytes(), FunctionCache::kBytes);
  }
  EXPECT_EQ(c.find(1), nullptr);
  EXPECT_EQ(c.size(), room);
}

TEST(FunctionCache, WhatNobodyElseHasStays) {
  FunctionCache c;
  const std::string definition(1 << 20, 'd');
  const uint64_t most = FunctionCache::kMaxBytes / definition.size();
  for (uint64_t k = 0; k < most; ++k) ASSERT_TRUE(c.add(k, definition));
  EXPECT_FALSE(c.add(most, definition));  // its process waits for the control store
  EXPECT_TRUE(c.add(0, definition));      // the same again
  for (uint64_t k = 0; k < most; ++k) EXPECT_NE(c.find(k), nullptr);
  for (uint64_t k = 0; k < most; ++k) c.stored(k);
  EXPECT_LE(c.bytes(), FunctionCache::kBytes);
  EXPECT_TRUE(c.add(most, definition));
  EXPECT_EQ(*c.find(most), definition);
}

}  // namespace
}  // namespace ray::node
