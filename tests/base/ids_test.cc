// Ids: deterministic, distinct, textual form, and evenly spread over tables and shards.
#include "libray/base/ids.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <unordered_set>
#include <vector>

namespace ray {
namespace {

Id filled(uint8_t v) {
  Id id;
  std::memset(id.b, v, sizeof id.b);
  return id;
}

TEST(Ids, AreAFunctionOfParentAndIndexForEver) {
  // Journals of earlier runs hold such ids: this value must never change.
  TaskId root = root_task(filled(7));
  TaskId child = child_task(origin_of(root), 5);
  EXPECT_EQ(child, child_task(origin_of(root_task(filled(7))), 5));
  EXPECT_EQ(root.hex(), "1cdf5a68bc22feffdbd9a58b834ba5e50000000000000000");
  EXPECT_EQ(child.hex(), "0d20b86c2f7ba710435cc5e0db6cfff60000000500000000");
}

TEST(Ids, OutsideOfTasksHaveARootOfTheirOwn) {
  const JobId job = filled(7);
  const ActorId actor = actor_of(child_task(origin_of(root_task(job)), 1));
  const std::vector<TaskId> roots = {root_task(job),       worker_root(job, 1),   worker_root(job, 2),
                                     actor_root(actor, 0), actor_root(actor, 1), worker_root(filled(8), 1)};
  EXPECT_EQ(std::set<TaskId>(roots.begin(), roots.end()).size(), roots.size());
  std::set<Id> made;
  for (const TaskId& root : roots) {
    made.insert(nth_task(root, origin_of(root), 1));
    made.insert(nth_put(root, 1));
  }
  EXPECT_EQ(made.size(), 2 * roots.size());
  EXPECT_EQ(actor_root(actor, 1), actor_root(actor, 1));  // a replay knows the actor and the incarnation
  EXPECT_TRUE(is_root_of(job, worker_root(job, 2)));
  EXPECT_TRUE(is_root_of(actor, actor_root(actor, 1)));
  EXPECT_FALSE(is_root_of(job, actor_root(actor, 1)));
}

TEST(Ids, OfActorsAreOfTheAttemptThatMadeThem) {
  const TaskId creator = child_task(origin_of(root_task(filled(7))), 3);
  std::set<Id> actors = {actor_of(nth_task(creator, origin_of(creator), 1))};
  for (uint32_t attempt : {1, 2, 3}) {
    const TaskId creation = child_task(origin_of_part(creator, kAttemptIndex, attempt), 1);
    EXPECT_TRUE(is_child_of(creator, creation));
    EXPECT_TRUE(actors.insert(actor_of(creation)).second);
  }
  EXPECT_FALSE(is_child_of(creator, creator));
}

TEST(Ids, DoNotRepeatAfterSomeBillions) {
  const TaskId parent = child_task(origin_of(root_task(filled(7))), 3);
  const Origin origin = origin_of(parent);
  const uint64_t round = uint64_t{1} << 32;
  std::set<Id> made;
  size_t n = 0;
  for (uint64_t part : {0, 1, 2, 7})
    for (uint64_t index : {1, 2, 3, 1 << 30}) {
      const TaskId task = nth_task(parent, origin, part * round + index);
      EXPECT_TRUE(is_child_of(parent, task));
      made.insert(task);
      made.insert(put_object(task, 1));
      made.insert(nth_put(parent, part * kPutsOfParent + index));
      n += 3;
    }
  made.insert(actor_of(parent));
  made.insert(put_object(parent, kArgumentsPut));
  EXPECT_EQ(made.size(), n + 2);
}

TEST(Ids, OfOneTaskDifferOnlyInTheObjectIndex) {
  TaskId task = child_task(origin_of(root_task(filled(1))), 0x01020304);
  EXPECT_EQ(task.submit_index(), 0x01020304u);
  EXPECT_EQ(task.object_index(), 0u);
  EXPECT_EQ(return_object(task, 0).object_index(), 1u);
  EXPECT_EQ(put_object(task, 3).object_index(), 0x80000003u);
  EXPECT_EQ(actor_of(task).object_index(), kActorIndex);
  for (const Id& id :
       {return_object(task, 0), return_object(task, 9), put_object(task, 0), actor_of(task)}) {
    EXPECT_EQ(producer_of(id), task);
    EXPECT_NE(id, task);
    EXPECT_EQ(gcs_slot(id), gcs_slot(task));
  }
}

TEST(Ids, SiblingsSortInSubmissionOrder) {
  Origin o = origin_of(root_task(filled(1)));
  std::vector<Id> ids;
  for (uint32_t i : {0u, 1u, 255u, 256u, 65536u, 0x01000000u, 0xfffffffeu})
    ids.push_back(child_task(o, i));
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
}

TEST(Ids, HexReadsBack) {
  Id id = random_id(), back;
  ASSERT_TRUE(Id::from_hex(id.hex(), &back));
  EXPECT_EQ(back, id);
  std::string upper = id.hex();
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  ASSERT_TRUE(Id::from_hex(upper, &back));
  EXPECT_EQ(back, id);
  for (std::string bad :
       {std::string(), id.hex().substr(1), id.hex() + "0", "g" + id.hex().substr(1)}) {
    Id kept = filled(9);
    EXPECT_FALSE(Id::from_hex(bad, &kept)) << bad;
    EXPECT_EQ(kept, filled(9));
  }
  EXPECT_TRUE(Id().is_nil());
  EXPECT_FALSE(id.is_nil());
  EXPECT_NE(random_id(), random_id());
}

TEST(Ids, OfATreeOfTasksAreDistinct) {
  std::unordered_set<Id> seen;
  std::vector<TaskId> level{root_task(filled(1)), root_task(filled(2))};
  for (int depth = 0; depth < 4; ++depth) {
    std::vector<TaskId> next;
    for (const TaskId& parent : level) {
      Origin o = origin_of(parent);
      for (uint32_t i = 0; i < 10; ++i) next.push_back(child_task(o, i));
    }
    for (const TaskId& t : next)
      for (const Id& id : {t, return_object(t, 0), put_object(t, 0), actor_of(t)})
        EXPECT_TRUE(seen.insert(id).second);
    level = next;
  }
  EXPECT_EQ(seen.size(), 4u * 2 * (10 + 100 + 1000 + 10000));
}

double max_over_mean(const std::vector<uint32_t>& counts) {
  uint64_t sum = 0;
  uint32_t most = 0;
  for (uint32_t c : counts) sum += c, most = std::max(most, c);
  return most * static_cast<double>(counts.size()) / static_cast<double>(sum);
}

constexpr uint32_t kManyIds = 100000;

TEST(Slots, RunsOfSiblingsStayTogetherAndTakeTurns) {
  Origin o = origin_of(root_task(filled(3)));
  std::vector<uint32_t> per_slot(kGcsSlots);
  for (uint32_t i = 0; i < kGcsSlots * 256; ++i) {
    uint32_t slot = gcs_slot(child_task(o, i));
    ASSERT_LT(slot, kGcsSlots);
    EXPECT_EQ(slot, gcs_slot(child_task(o, i & ~255u)));
    ++per_slot[slot];
  }
  EXPECT_EQ(max_over_mean(per_slot), 1.0);
}

TEST(Slots, ShardsGetEvenSharesOfOneParentAndOfMany) {
  for (uint32_t shards : {2u, 3u, 4u, 8u, 16u}) {
    std::vector<uint32_t> one(shards), many(shards), keys(shards);
    Origin o = origin_of(root_task(filled(4)));
    for (uint32_t i = 0; i < kManyIds; ++i) {
      ++one[gcs_slot(child_task(o, i)) % shards];
      // Every tenth task is a parent of its own: nested parallelism.
      ++many[gcs_slot(child_task(origin_of(child_task(o, i / 10)), i % 10)) % shards];
      std::string key = "key-" + std::to_string(i);
      ++keys[gcs_slot_of_key(key.data(), key.size()) % shards];
    }
    EXPECT_LE(max_over_mean(one), 1.15) << shards;
    EXPECT_LE(max_over_mean(many), 1.15) << shards;
    EXPECT_LE(max_over_mean(keys), 1.15) << shards;
  }
}

TEST(Slots, ManyParentsSpreadOverAllSlots) {
  // Random placement of 10 000 runs: the fullest of 1024 slots stays below three times the mean.
  std::vector<uint32_t> per_slot(kGcsSlots);
  Origin o = origin_of(root_task(filled(5)));
  for (uint32_t i = 0; i < 10000; ++i)
    ++per_slot[gcs_slot(child_task(origin_of(child_task(o, i)), 0))];
  EXPECT_LT(max_over_mean(per_slot), 3.0);
  EXPECT_GT(*std::min_element(per_slot.begin(), per_slot.end()), 0u);
}

TEST(Hash, SpreadsStructuredIdsInLowAndHighBits) {
  constexpr uint32_t kBuckets = 64;
  Origin o = origin_of(root_task(filled(6)));
  std::vector<uint32_t> low(kBuckets), high(kBuckets), returns(kBuckets), puts(kBuckets);
  std::set<uint64_t> distinct;
  for (uint32_t i = 0; i < kManyIds; ++i) {
    uint64_t h = hash_id(child_task(o, i));
    distinct.insert(h);
    ++low[h % kBuckets];
    ++high[h >> 58];
    ++returns[hash_id(return_object(child_task(o, i / 4), i % 4)) % kBuckets];
    ++puts[hash_id(put_object(child_task(o, 0), i)) % kBuckets];
  }
  EXPECT_EQ(distinct.size(), kManyIds);
  for (const auto& counts : {low, high, returns, puts}) EXPECT_LE(max_over_mean(counts), 1.15);
  EXPECT_NE(hash_id(filled(1)), hash_id(filled(1), 1));
}

}  // namespace
}  // namespace ray
