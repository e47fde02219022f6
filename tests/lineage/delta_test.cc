// Delta coding: what is encoded comes back, bit by bit; runs of alike records become small; damaged and
// hostile streams are refused.
#include "libray/lineage/delta.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "libray/lineage/reader.h"
#include "ray.h"

namespace ray::lineage {
namespace {

void add_task(std::string* batch, uint32_t index, std::string_view name, std::string_view arg = {}) {
  Id id;
  id.b[3] = 7;
  id.set_submit_index(index);
  ArgIn a{false, RAY_FMT_RAW, arg};
  SubmitIn s;
  s.fixed.task = id;
  s.fixed.submit_ns = 1'700'000'000'000'000'000 + 400 * int64_t{index};
  s.name = name;
  s.args = &a;
  s.n_args = arg.empty() ? 0 : 1;
  append(batch, s);
  ResultIn result{0, RAY_FMT_RAW, 2, false, "ok"};
  ExecIn e;
  e.fixed.task = id;
  e.fixed.start_ns = s.fixed.submit_ns + 1000;
  e.fixed.end_ns = s.fixed.submit_ns + 1200 + index % 7;
  e.results = &result;
  e.n_results = 1;
  append(batch, e);
}

std::string round_trip(const std::string& batch, size_t* coded) {
  DeltaEncoder encoder;
  EXPECT_TRUE(encoder.add_batch(batch));
  EXPECT_EQ(encoder.raw_size(), batch.size());
  *coded = encoder.bytes().size();
  std::string back;
  EXPECT_TRUE(delta_decode(encoder.bytes(), encoder.raw_size(), &back));
  return back;
}

TEST(Delta, AlikeRecordsComeBackFromATenthOfTheirSize) {
  std::string batch;
  for (uint32_t i = 1; i <= 1000; ++i) add_task(&batch, i, "noop");
  size_t coded;
  EXPECT_EQ(round_trip(batch, &coded), batch);
  EXPECT_LT(coded * 8, batch.size());
}

TEST(Delta, MixedRecordsOfAllSizesComeBack) {
  std::mt19937 random(4);
  for (int round = 0; round < 50; ++round) {
    std::string batch;
    for (uint32_t i = 0; i < 60; ++i) {
      if (random() % 8 == 0) append_event(&batch, kEvent, random(), random() % 9, std::string(random() % 50, 'e'));
      add_task(&batch, static_cast<uint32_t>(random()), std::string(random() % 20, 'n'),
               std::string(random() % 3 ? 0 : random() % 900, static_cast<char>(random())));
    }
    size_t coded;
    EXPECT_EQ(round_trip(batch, &coded), batch);
  }
}

// From the process that codes into its ring to the pump: the same records, of all sizes and types.
TEST(Delta, AMirrorRestoresWhatARingCarries) {
  std::mt19937 random(5);
  DeltaCoder coder;
  DeltaMirror mirror;
  size_t coded_records = 0, records = 0;
  for (int round = 0; round < 50; ++round) {
    std::string batch;
    for (uint32_t i = 0; i < 60; ++i) {
      if (random() % 16 == 0) append_event(&batch, kEvent, random(), random() % 9, std::string(random() % 50, 'e'));
      add_task(&batch, static_cast<uint32_t>(random()), std::string(random() % 5 ? 5 : 15, 'n'),
               std::string(random() % 3 ? 0 : random() % 900, static_cast<char>(random())));
    }
    BatchReader reader(batch);
    uint16_t type;
    std::string_view payload;
    for (; reader.next(&type, &payload); ++records) {
      uint8_t coded[DeltaCoder::kMaxCoded];
      auto* bytes = reinterpret_cast<const uint8_t*>(payload.data());
      auto size = static_cast<uint32_t>(payload.size());
      uint16_t t = type;
      if (uint32_t n = coder.code(type, bytes, size, coded)) {
        t = kCoded, bytes = coded, size = n, ++coded_records;
      } else {
        bytes = coder.whole(type, bytes, size);
      }
      ASSERT_TRUE(mirror.restore(&t, &bytes, &size));
      EXPECT_EQ(t, type);
      EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(bytes), size), payload);
    }
  }
  EXPECT_GT(coded_records * 3, records);
}

// Only a process that writes garbage makes one; what others write after it must stay readable.
TEST(Delta, ARecordOfNothingIsNotTheLastOfItsType) {
  const uint8_t bytes[16] = {1, 2, 3};
  DeltaEncoder encoder;
  for (uint32_t size : {0u, 16u, 0u, 16u, 0u, 8u, 8u}) encoder.add(kSubmit, bytes, size);
  std::string back;
  ASSERT_TRUE(delta_decode(encoder.bytes(), encoder.raw_size(), &back));
  BatchReader reader(back);
  uint16_t type;
  std::string_view payload;
  for (uint32_t size : {0u, 16u, 0u, 16u, 0u, 8u, 8u}) {
    ASSERT_TRUE(reader.next(&type, &payload));
    EXPECT_EQ(payload, std::string_view(reinterpret_cast<const char*>(bytes), size));
  }
}

TEST(Delta, AMirrorRefusesDamage) {
  std::mt19937 random(6);
  std::string batch;
  for (uint32_t i = 1; i <= 2; ++i) add_task(&batch, i, "noop");
  std::vector<std::pair<uint16_t, std::string>> good;
  DeltaCoder coder;
  BatchReader reader(batch);
  uint16_t type;
  std::string_view payload;
  while (reader.next(&type, &payload)) {
    uint8_t coded[DeltaCoder::kMaxCoded];
    auto* bytes = reinterpret_cast<const uint8_t*>(payload.data());
    uint32_t n = coder.code(type, bytes, static_cast<uint32_t>(payload.size()), coded);
    good.emplace_back(n ? uint16_t{kCoded} : type, n ? std::string(reinterpret_cast<char*>(coded), n) : std::string(payload));
  }
  ASSERT_EQ(good.back().first, kCoded);
  auto restore = [](DeltaMirror* m, uint16_t t, const std::string& record) {
    auto copy = std::make_unique<uint8_t[]>(record.size());  // exact bounds, for asan
    std::copy(record.begin(), record.end(), copy.get());
    const uint8_t* bytes = copy.get();
    auto size = static_cast<uint32_t>(record.size());
    return m->restore(&t, &bytes, &size);
  };
  for (size_t n = 0; n < good.back().second.size(); ++n) {
    DeltaMirror mirror;
    for (size_t i = 0; i + 1 < good.size(); ++i) ASSERT_TRUE(restore(&mirror, good[i].first, good[i].second));
    EXPECT_FALSE(restore(&mirror, kCoded, good.back().second.substr(0, n))) << n;
  }
  for (int round = 0; round < 3000; ++round) {
    DeltaMirror mirror;
    for (size_t i = 0; i + 1 < good.size(); ++i) restore(&mirror, good[i].first, good[i].second);
    std::string bad = good.back().second;
    for (int k = 0; k < 2; ++k) bad[random() % bad.size()] = static_cast<char>(random());
    restore(&mirror, kCoded, bad);
  }
  DeltaMirror fresh;
  EXPECT_FALSE(restore(&fresh, kCoded, good.back().second));
}

TEST(Delta, StreamsMayBeJoined) {
  std::string a, b;
  for (uint32_t i = 1; i <= 5; ++i) add_task(&a, i, "one");
  for (uint32_t i = 1; i <= 5; ++i) add_task(&b, 90 + i, "one");
  DeltaEncoder x, y;
  ASSERT_TRUE(x.add_batch(a) && y.add_batch(b));
  std::string back;
  ASSERT_TRUE(delta_decode(x.bytes() + y.bytes(), a.size() + b.size(), &back));
  EXPECT_EQ(back, a + b);
}

TEST(Delta, DamagedStreamsAreRefusedOrHarmless) {
  std::string batch, back;
  for (uint32_t i = 1; i <= 30; ++i) add_task(&batch, i, "noop", i % 5 ? "" : "argument");
  DeltaEncoder encoder;
  ASSERT_TRUE(encoder.add_batch(batch));
  const std::string good = encoder.bytes();
  for (size_t n = 0; n < good.size(); ++n)
    EXPECT_FALSE(delta_decode(std::string_view(good).substr(0, n), batch.size(), &back)) << n;
  EXPECT_FALSE(delta_decode(good, batch.size() - 8, &back));
  EXPECT_FALSE(delta_decode(good, batch.size() + 8, &back));
  std::mt19937 random(9);
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    for (int k = 0; k < 3; ++k) bad[random() % bad.size()] = static_cast<char>(random());
    if (delta_decode(bad, batch.size(), &back)) EXPECT_EQ(back.size(), batch.size());
  }
  DeltaEncoder none;
  EXPECT_FALSE(none.add_batch(batch.substr(0, batch.size() - 8)));
  EXPECT_EQ(none.records(), 0u);
}

}  // namespace
}  // namespace ray::lineage
