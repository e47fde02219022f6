// The runtime environments of a node: counted, bounded in bytes, and gone with their last user.
#include "libray/node/core/environments.h"

#include <gtest/gtest.h>

namespace ray::node {
namespace {

TEST(Environments, GoWithTheirLastUser) {
  Environments envs;
  uint32_t a = envs.take("a"), b = envs.take("b");
  EXPECT_NE(a, b);
  EXPECT_EQ(envs.take("a"), a);
  EXPECT_EQ(envs.packed(a), "a");
  envs.keep(a);
  EXPECT_FALSE(envs.drop(a));
  EXPECT_FALSE(envs.drop(a));
  EXPECT_TRUE(envs.drop(a));
  EXPECT_FALSE(envs.known(a));
  EXPECT_FALSE(envs.drop(a));
  EXPECT_NE(envs.take("a"), a);  // a number is never another environment's
  EXPECT_TRUE(envs.drop(b));
  EXPECT_TRUE(envs.known(0));
  EXPECT_FALSE(envs.drop(0));
}

TEST(Environments, TakeSoManyBytes) {
  Environments envs(3 * (100 + Environments::kEach));
  const std::string packed(99, 'x');
  uint32_t first = envs.take("1" + packed);
  EXPECT_NE(envs.take("2" + packed), 0u);
  EXPECT_NE(envs.take("3" + packed), 0u);
  EXPECT_EQ(envs.take("4" + packed), 0u);
  EXPECT_EQ(envs.take("1" + packed), first);  // that is there already
  EXPECT_FALSE(envs.drop(first));
  EXPECT_TRUE(envs.drop(first));
  EXPECT_NE(envs.take("4" + packed), 0u);
  EXPECT_EQ(envs.size(), 3u);
}

}  // namespace
}  // namespace ray::node
