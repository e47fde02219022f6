// The store's pure parts: address space, directory, hold set.
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "store/core.h"
#include "tests/store/store_util.h"

namespace ray::store {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(Space, LastFreedIsFirstReused) {
  Space s(64 * kMiB);
  auto a = s.take_cold(kMiB), b = s.take_cold(kMiB);
  ASSERT_TRUE(a && b);
  s.give(*a, true);
  s.give(*b, true);
  EXPECT_EQ(s.take_warm(kMiB)->offset, b->offset);
  EXPECT_EQ(s.take_warm(kMiB)->offset, a->offset);
  EXPECT_FALSE(s.take_warm(kMiB));
}

TEST(Space, NeighboursMergeWhenALargerRunIsAsked) {
  Space s(8 * kMiB);
  std::vector<Space::Run> runs;
  for (int i = 0; i < 8; ++i) runs.push_back(*s.take_cold(kMiB));
  EXPECT_FALSE(s.take_cold(kMiB));
  for (auto& r : runs) s.give(r, true);
  EXPECT_EQ(s.warm_bytes(), 8 * kMiB);
  ASSERT_TRUE(s.take_warm(8 * kMiB));
  EXPECT_EQ(s.warm_bytes(), 0u);
}

TEST(Space, CoolingMovesWarmToCold) {
  Space s(4 * kMiB);
  s.give(*s.take_cold(4 * kMiB), true);
  EXPECT_FALSE(s.take_cold(kMiB));
  auto run = s.take_to_cool(kMiB);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->size, kMiB);
  s.give(*run, false);
  EXPECT_TRUE(s.take_cold(kMiB));
  EXPECT_EQ(s.warm_bytes(), 3 * kMiB);
}

// Against a model: nothing is handed out twice, nothing is lost.
TEST(Space, RandomRunsAgainstAModel) {
  std::mt19937_64 random(11);
  constexpr uint64_t kUnits = 512;
  Space s(kUnits * kUnit);
  std::vector<int> owner(kUnits, 0);
  std::vector<Space::Run> held;
  uint64_t warm = 0;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 || held.empty()) {
      uint64_t size = (1 + random() % 12) * kUnit;
      bool from_warm = random() % 2;
      auto run = from_warm ? s.take_warm(size) : s.take_cold(size);
      if (!run) continue;
      ASSERT_EQ(run->size, size);
      if (from_warm) warm -= size;
      for (uint64_t u = run->offset / kUnit; u < (run->offset + size) / kUnit; ++u)
        ASSERT_EQ(owner[u]++, 0);
      held.push_back(*run);
    } else {
      size_t k = random() % held.size();
      Space::Run run = held[k];
      held.erase(held.begin() + static_cast<long>(k));
      for (uint64_t u = run.offset / kUnit; u < (run.offset + run.size) / kUnit; ++u)
        ASSERT_EQ(owner[u]--, 1);
      bool keep = random() % 2;
      if (keep) warm += run.size;
      s.give(run, keep);
    }
    ASSERT_EQ(s.warm_bytes(), warm);
  }
  for (auto& r : held) s.give(r, true);
  while (auto r = s.take_to_cool(UINT64_MAX)) s.give(*r, false);
  EXPECT_TRUE(s.take_cold(kUnits * kUnit));  // one piece again
}

DirectoryRow row_of(uint64_t n, uint64_t version) {
  return {make_id(n),
          kDirMemory,
          {static_cast<uint32_t>(n + 1), static_cast<uint32_t>(version), version * 64, n},
          static_cast<uint32_t>(n)};
}

TEST(Directory, RandomOperationsAgainstAMap) {
  auto w = DirectoryWriter::create(1 << 20, 4096, 1 << 24);
  ASSERT_TRUE(w.ok());
  auto map = map_shared(w->readonly_fd(), kDirectoryBytes, false);
  ASSERT_TRUE(map.ok());
  DirectoryReader reader(map->data());
  std::map<uint64_t, uint64_t> model;
  std::mt19937_64 random(5);
  for (int step = 0; step < 60000; ++step) {
    uint64_t n = random() % 20000;
    DirectoryRow row;
    switch (random() % 3) {
      case 0:
        ASSERT_TRUE(w->insert(row_of(n, static_cast<uint64_t>(step))));
        model[n] = static_cast<uint64_t>(step);
        break;
      case 1:
        w->erase(make_id(n), 0);
        model.erase(n);
        break;
      default:
        ASSERT_EQ(reader.find(make_id(n), 0, &row), model.count(n) == 1);
        if (model.count(n)) {
          ASSERT_EQ(row.location.generation, model[n]);
        }
    }
    ASSERT_EQ(w->size(), model.size());
  }
  size_t rows = 0;
  reader.for_each([&](const DirectoryRow& row) {
    uint64_t n;
    std::memcpy(&n, row.id.b, sizeof n);
    EXPECT_EQ(model.at(n), row.location.generation);
    return ++rows, true;
  });
  EXPECT_EQ(rows, model.size());
  for (auto& [n, version] : model) w->erase(make_id(n), 0);
  w->shrink_if_sparse();
  EXPECT_EQ(w->header()->table.load(), kMinTableLog2);
}

TEST(Directory, CopiesOfOneIdAreRowsOfTheirOwn) {
  auto w = DirectoryWriter::create(1 << 20, 4096, 1 << 24);
  ASSERT_TRUE(w.ok());
  DirectoryReader reader(reinterpret_cast<const uint8_t*>(w->header()));
  auto row = [](uint32_t generation, uint64_t offset) {
    Location at{3, generation, offset, (uint64_t{1} << 42) - generation};
    return DirectoryRow{make_id(1), kDirMemory, at, generation, copy_name(at)};
  };
  std::vector<DirectoryRow> rows;
  for (uint32_t g : {1u, 7u, 0xFFFFFFFFu})
    for (uint64_t offset : {uint64_t{0}, uint64_t{64}, kMaxSmallExtent - 64, kMaxArena - 64})
      rows.push_back(row(g, offset));
  for (auto& r : rows) ASSERT_TRUE(w->insert(r));
  EXPECT_EQ(w->size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t k = 0; k < rows.size(); ++k) {
      DirectoryRow out;
      ASSERT_EQ(reader.find(make_id(1), rows[k].copy, &out), k >= i);
      if (k < i) continue;
      EXPECT_EQ(out.location.offset, rows[k].location.offset);
      EXPECT_EQ(out.location.size, rows[k].location.size);
      EXPECT_EQ(out.object, rows[k].object);
      EXPECT_EQ(out.copy, rows[k].copy);
    }
    std::vector<DirectoryRow> all;
    w->find_all(make_id(1), &all);
    EXPECT_EQ(all.size(), rows.size() - i);
    w->erase(make_id(1), rows[i].copy);
  }
  EXPECT_EQ(w->size(), 0u);
}

// A reader sees a whole old row, a whole new row, or nothing; never a mixture.
TEST(Directory, ReadersNeverSeeHalfARow) {
  auto w = DirectoryWriter::create(1 << 20, 4096, 1 << 24);
  ASSERT_TRUE(w.ok());
  DirectoryReader reader(
      reinterpret_cast<const uint8_t*>(w->header()));  // same mapping: visible to tsan
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> hits{0};
  std::thread thread([&] {
    std::mt19937_64 random(1);
    while (!stop) {
      uint64_t n = random() % 64;
      DirectoryRow row;
      if (!reader.find(make_id(n), 0, &row)) continue;
      ++hits;
      ASSERT_EQ(row.location.size, n);
      ASSERT_EQ(row.location.segment, n + 1);
      ASSERT_EQ(row.location.offset, row.location.generation * 64ull);
    }
  });
  std::mt19937_64 random(2);
  for (uint64_t version = 0; version < 200000 || hits < 1000; ++version) {
    uint64_t n = random() % 64;
    if (random() % 4)
      ASSERT_TRUE(w->insert(row_of(n, version & 0xFFFFFF)));
    else
      w->erase(make_id(n), 0);
  }
  stop = true;
  thread.join();
}

TEST(HoldSet, Counts) {
  HoldSet s;
  EXPECT_FALSE(s.has(1));
  s.fill({});
  EXPECT_FALSE(s.has(1));
  std::vector<uint64_t> words;
  for (uint64_t i = 1; i <= 1000; ++i)
    for (uint64_t k = 0; k < i % 3 + 1; ++k)
      words.push_back(hold_word(static_cast<uint32_t>(i), i * 64));
  s.fill(words);
  for (uint64_t i = 1; i <= 1000; ++i)
    EXPECT_EQ(s.count(hold_word(static_cast<uint32_t>(i), i * 64)), i % 3 + 1);
  EXPECT_FALSE(s.has(hold_word(5000, 64)));
}

TEST(Spill, RunsAreReusedAndBytesVerified) {
  TempDir dir;
  SpillFile f(dir.path() + "/s", 1 << 20);
  std::vector<uint8_t> bytes(100000);
  fill(bytes.data(), bytes.size(), 3);
  auto at = f.reserve(bytes.size());
  ASSERT_TRUE(at.ok());
  std::vector<SpillPiece> pieces = {{bytes.data(), bytes.size(), *at, 0}};
  ASSERT_TRUE(f.write(&pieces).ok());
  std::vector<uint8_t> back(bytes.size());
  ASSERT_TRUE(f.read(*at, back.size(), pieces[0].checksum, back.data()).ok());
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(f.read(*at, back.size(), pieces[0].checksum + 1, back.data()).code(), RAY_OBJECT_LOST);
  EXPECT_EQ(f.read(*at + 1, back.size(), pieces[0].checksum, back.data()).code(), RAY_OBJECT_LOST);
  EXPECT_EQ(f.reserve(1 << 20).status().code(), RAY_STORE_FULL);
  f.discard(*at, bytes.size());
  f.release(*at, bytes.size());
  EXPECT_EQ(f.used(), 0u);
  auto again = f.reserve(1 << 20);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, *at);
}

}  // namespace
}  // namespace ray::store
