// A shard as a process, used through the client.
#include <gtest/gtest.h>

#include <future>

#include "tests/gcs/shard_process.h"

namespace ray::gcs {
namespace {

using namespace test;

class ServiceTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(shard_.start()); }
  TempDir dir_;
  ShardProcess shard_{dir_.path()};
};

TEST_F(ServiceTest, KeyValueWithVersionsSurvivesKill) {
  auto c = connect({shard_.url()}, node_of(1));
  EXPECT_EQ(first_u(kv_put(c.get(), 0, "ns", "k", "one", 0)), 1u);
  EXPECT_EQ(kv_put(c.get(), 0, "ns", "k", "two", 0).code, RAY_CONFLICT);
  EXPECT_EQ(first_u(kv_put(c.get(), 0, "ns", "k", "two", 1)), 2u);
  shard_.kill9();
  ASSERT_TRUE(shard_.start());
  Got g = kv_get(c.get(), 0, "ns", "k");
  ASSERT_EQ(g.code, RAY_OK);
  Reader r(g.answer);
  r.array_of(2);
  EXPECT_EQ(r.u(), 2u);
  EXPECT_EQ(r.bytes(), "two");
  EXPECT_EQ(kv_get(c.get(), 0, "ns", "other").code, RAY_NOT_FOUND);
}

TEST_F(ServiceTest, WrongTokenIsRefused) {
  auto c = connect({shard_.url()}, node_of(1), 1, "00000000000000000000000000000000");
  EXPECT_EQ(kv_put(c.get(), 0, "ns", "k", "v").code, RAY_INVALID_ARGUMENT);
  auto good = connect({shard_.url()}, node_of(1));
  EXPECT_EQ(kv_get(good.get(), 0, "ns", "k").code, RAY_NOT_FOUND);
}

TEST_F(ServiceTest, LineageBecomesReadableRows) {
  auto c = connect({shard_.url()}, node_of(1));
  TaskId root = root_task(node_of(9));
  Origin origin = origin_of(root);
  std::string batch;
  for (uint32_t k = 0; k < 1000; ++k)
    add_task(&batch, child_task(origin, k), root, 1'700'000'000'000'000'000 + k, 
             k > 0 ? std::vector<ObjectId>{return_object(child_task(origin, k - 1), 0)}
                   : std::vector<ObjectId>{});
  EXPECT_EQ(append(c.get(), 0, batch, 2000), 2000u);
  Got g = query(c.get(), 0, "tasks");
  ASSERT_EQ(g.code, RAY_OK) << g.text;
  EXPECT_EQ(Reader(g.answer).array(), 1000u);
  auto rows = sql(shard_.database(), "SELECT name,state,args,result,started,pid FROM tasks LIMIT 1");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0], "noop|FINISHED|7|7|2023-11-14T22:13:20.000001000Z|4711");
  EXPECT_EQ(sql(shard_.database(), "SELECT count(*) FROM task_args")[0], "999");
  EXPECT_EQ(sql(shard_.database(), "SELECT count(*) FROM objects WHERE state='READY'")[0], "1000");
  EXPECT_EQ(sql(shard_.database(), "SELECT lsn FROM node_journals")[0], "2000");
  EXPECT_EQ(shard_.stop(), 0);
}

}  // namespace
}  // namespace ray::gcs
