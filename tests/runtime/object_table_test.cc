// The table of entries by id, against std::unordered_map under random changes.
#include "libray/runtime/object_table.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <unordered_map>

namespace ray {
namespace {

ObjectId id_of(uint64_t parent, uint32_t index) {
  ObjectId id;
  uint64_t words[3] = {parent * 0x9e3779b97f4a7c15u, parent, index};
  std::memcpy(&id, words, sizeof id);
  return id;
}

struct Entries {
  std::deque<Object> all;
  Object* make(const ObjectId& id) {
    all.emplace_back();
    all.back().id = id;
    return &all.back();
  }
};

TEST(ObjectTable, FindsWhatItWasGiven) {
  ObjectTable t;
  Entries e;
  EXPECT_EQ(t.find(id_of(1, 1)), nullptr);
  Object* a = e.make(id_of(1, 1));
  t.erase(a);  // empty: nothing
  t.set(a);
  EXPECT_EQ(t.find(a->id), a);
  Object* b = e.make(a->id);
  t.erase(b);  // the id has another entry
  EXPECT_EQ(t.find(a->id), a);
  t.set(b);
  EXPECT_EQ(t.find(a->id), b);
  EXPECT_EQ(t.size(), 1u);
  t.erase(a);
  EXPECT_EQ(t.size(), 1u);
  t.erase(b);
  EXPECT_EQ(t.size(), 0u);
  EXPECT_EQ(t.find(a->id), nullptr);
}

// Siblings in runs, as programs make them, come and go; the table agrees with the map after each step.
TEST(ObjectTable, AgreesWithAMap) {
  std::mt19937_64 pick(GTEST_FLAG_GET(random_seed) ? GTEST_FLAG_GET(random_seed) : 7);
  for (int round = 0; round < 20; ++round) {
    ObjectTable t;
    Entries e;
    std::unordered_map<ObjectId, Object*> map;
    for (int step = 0; step < 4000; ++step) {
      ObjectId id = id_of(pick() % 4, static_cast<uint32_t>(pick() % 300));
      auto it = map.find(id);
      Object* known = it == map.end() ? nullptr : it->second;
      ASSERT_EQ(t.find(id), known);
      if (pick() % 2) {
        Object* o = e.make(id);
        t.set(o);
        map[id] = o;
      } else if (known) {
        t.erase(known);
        map.erase(id);
      }
      ASSERT_EQ(t.size(), map.size());
    }
    size_t n = 0;
    t.for_each([&](Object* o) {
      ++n;
      EXPECT_EQ(map.at(o->id), o);
    });
    EXPECT_EQ(n, map.size());
    for (auto& [id, o] : map) EXPECT_EQ(t.find(id), o);
  }
}

// A batch that comes and goes does not make the table anew; what a big one took is given back.
TEST(ObjectTable, KeepsItsSizeBetweenBatches) {
  ObjectTable t;
  Entries e;
  std::vector<Object*> batch;
  for (uint32_t i = 0; i < 10000; ++i) batch.push_back(e.make(id_of(5, i)));
  for (Object* o : batch) t.set(o);
  size_t full = t.capacity();
  EXPECT_LE(full, 4 * batch.size());
  for (size_t i = 2000; i < batch.size(); ++i) t.erase(batch[i]);
  EXPECT_EQ(t.capacity(), full);
  for (size_t i = 0; i < 2000; ++i) t.erase(batch[i]);
  EXPECT_LE(t.capacity(), full / 4);
  EXPECT_EQ(t.size(), 0u);
}

}  // namespace
}  // namespace ray
