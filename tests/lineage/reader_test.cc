// Lineage records: what is encoded comes back; what is damaged is refused.
#include "libray/lineage/reader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "libray/base/ring.h"
#include "ray.h"

namespace ray::lineage {
namespace {

Id id_of(uint8_t n) {
  Id id;
  for (size_t k = 0; k < kIdSize; ++k) id.b[k] = static_cast<uint8_t>(n + k);
  return id;
}

std::string sample() {
  std::string batch;
  ObjectId ref = id_of(9);
  ArgIn args[] = {{false, RAY_FMT_MSGPACK, "\x01"},
                  {true, 0, {reinterpret_cast<const char*>(ref.b), kIdSize}},
                  {false, RAY_FMT_RAW, "hello, world"}};
  SubmitIn s;
  s.fixed.task = id_of(1);
  s.fixed.parent = id_of(2);
  s.fixed.submit_ns = 5;
  s.name = "train";
  s.method = "step";
  s.args = args;
  s.n_args = 3;
  append(&batch, s);
  ResultIn results[] = {{0, RAY_FMT_RAW, 3, false, "abc"}, {1, RAY_FMT_PICKLE5, 1 << 20, true, {}}};
  ExecIn e;
  e.fixed.task = id_of(1);
  e.fixed.code = RAY_TASK_FAILED;
  e.results = results;
  e.n_results = 2;
  e.error = "division by zero";
  append(&batch, e);
  append_event(&batch, kEvent, 77, 3, "\x80");
  return batch;
}

TEST(Reader, WhatIsEncodedComesBack) {
  std::string batch = sample();
  EXPECT_EQ(batch.size() % 8, 0u);
  BatchReader r(batch);
  uint16_t type;
  std::string_view payload;
  ASSERT_TRUE(r.next(&type, &payload));
  ASSERT_EQ(type, kSubmit);
  SubmitView s;
  ASSERT_TRUE(decode(payload, &s));
  EXPECT_EQ(s.fixed.task, id_of(1));
  EXPECT_EQ(s.name, "train");
  EXPECT_EQ(s.method, "step");
  ASSERT_EQ(s.args.size(), 3u);
  EXPECT_EQ(s.args[0].bytes, "\x01");
  EXPECT_TRUE(s.args[1].is_ref);
  EXPECT_EQ(std::memcmp(s.args[1].bytes.data(), id_of(9).b, kIdSize), 0);
  EXPECT_EQ(s.args[2].bytes, "hello, world");
  ASSERT_TRUE(r.next(&type, &payload));
  ASSERT_EQ(type, kExec);
  ExecView e;
  ASSERT_TRUE(decode(payload, &e));
  ASSERT_EQ(e.results.size(), 2u);
  EXPECT_EQ(e.results[0].bytes, "abc");
  EXPECT_EQ(e.results[1].fixed.size, uint64_t{1} << 20);
  EXPECT_TRUE(e.results[1].bytes.empty());
  EXPECT_EQ(e.error, "division by zero");
  ASSERT_TRUE(r.next(&type, &payload));
  EventView v;
  ASSERT_TRUE(decode(payload, &v));
  EXPECT_EQ(v.fixed.time_ns, 77);
  EXPECT_EQ(v.map, "\x80");
  EXPECT_FALSE(r.next(&type, &payload));
  EXPECT_FALSE(r.corrupt());
}

TEST(Reader, EveryTruncationIsNoticed) {
  std::string batch = sample();
  BatchReader whole(batch);
  uint16_t type;
  std::string_view payload;
  while (whole.next(&type, &payload)) {
    for (size_t cut = 0; cut < payload.size(); ++cut) {
      // A copy of exactly that size, so that a sanitizer sees any read beyond it.
      std::vector<char> part(payload.begin(), payload.begin() + static_cast<long>(cut));
      std::string_view v(part.data(), part.size());
      SubmitView s;
      ExecView e;
      EventView x;
      if (type == kSubmit) {
        // The padding behind the last argument may go unnoticed only if it is whole.
        EXPECT_FALSE(decode(v, &s)) << cut;
      } else if (type == kExec) {
        EXPECT_FALSE(decode(v, &e)) << cut;
      } else {
        EXPECT_FALSE(decode(v, &x)) << cut;
      }
    }
  }
  for (size_t cut = 1; cut < batch.size(); ++cut) {
    BatchReader r(std::string_view(batch).substr(0, cut));
    size_t n = 0;
    while (r.next(&type, &payload)) ++n;
    EXPECT_LT(n, 3u);
  }
}

TEST(Reader, DamagedBytesNeverLeadOutside) {
  std::mt19937 random(3);
  std::string good = sample();
  for (int round = 0; round < 20000; ++round) {
    std::vector<char> bytes(good.begin(), good.end());
    for (int k = 0; k < 4; ++k) bytes[random() % bytes.size()] = static_cast<char>(random());
    BatchReader r({bytes.data(), bytes.size()});
    uint16_t type;
    std::string_view payload;
    SubmitView s;
    ExecView e;
    EventView v;
    while (r.next(&type, &payload)) {
      if (decode(payload, &s)) {
        for (auto& a : s.args) EXPECT_TRUE(a.bytes.data() + a.bytes.size() <= bytes.data() + bytes.size());
      }
      decode(payload, &e);
      decode(payload, &v);
    }
  }
}

}  // namespace
}  // namespace ray::lineage
