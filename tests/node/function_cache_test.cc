// The daemon's definitions of functions: bounded, and nothing goes that cannot be asked for again.
#include "libray/node/core/function_cache.h"
#include "libray/node/core/function_users.h"

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

TEST(FunctionUsers, ProcessesAndActorsNeedWhatTheyHave) {
  FunctionUsers u;
  u.define(1, 7);
  u.define(1, 7);  // on another thread
  u.define(2, 7);
  u.hold(7);
  EXPECT_FALSE(u.drop(1, 7, 1));
  EXPECT_FALSE(u.drop(3, 7, 1));  // never had it
  EXPECT_FALSE(u.drop(1, 8, 1));
  EXPECT_FALSE(u.drop(1, 7, 5));
  EXPECT_FALSE(u.drop(1, 7, 1));  // more than it had
  EXPECT_TRUE(u.process_gone(2).empty());
  EXPECT_TRUE(u.used(7));
  EXPECT_TRUE(u.release(7));
  EXPECT_FALSE(u.release(7));
  EXPECT_FALSE(u.used(7));
  u.define(2, 9);
  u.define(2, 10);
  u.define(3, 10);
  EXPECT_EQ(u.process_gone(2), std::vector<uint64_t>{9});
  EXPECT_TRUE(u.drop(3, 10, 1));
  EXPECT_EQ(u.size(), 0u);
}

}  // namespace
}  // namespace ray::node
