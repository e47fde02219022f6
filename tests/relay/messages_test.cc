// Records between relays: what goes in comes out, bytes that nobody vouches for are refused, and an answer is cut into parts.
#include <gtest/gtest.h>

#include <cstring>

#include "libray/relay/messages.h"
#include "libray/relay/outgoing.h"
#include "libray/wire/packed.h"

namespace ray::relay {
namespace {

Id id(uint8_t n) {
  Id out;
  out.b[0] = n;
  return out;
}

Record task_record() {
  Record r;
  r.kind = Kind::kTask;
  r.lane = 7;
  r.task.number = 9;
  r.task.id = id(1);
  r.task.parent = id(2);
  r.task.attempt = 3;
  r.task.function = UINT64_MAX;
  r.task.name = "f";
  r.task.n_returns = 2;
  r.task.caller = RAY_LANG_PYTHON;
  Value plain;
  plain.given = true;
  plain.format = RAY_FMT_MSGPACK;
  plain.data = "value";
  plain.oob = {"one", ""};
  Value apart;
  apart.given = apart.apart = true;
  apart.format = RAY_FMT_PICKLE5;
  r.task.args = {plain, apart};
  return r;
}

TEST(Messages, SeveralRecordsInOneMessage) {
  std::string message;
  const Record task = task_record();
  const uint64_t n = encode(task, &message);
  Record room;
  room.kind = Kind::kTaskRoom;
  room.lane = UINT64_MAX;
  room.bytes_done = 5;
  encode(room, &message);
  RecordReader reader(message);
  Record r;
  ASSERT_TRUE(reader.next(&r));
  EXPECT_EQ(r.kind, Kind::kTask);
  EXPECT_EQ(r.size, n);
  EXPECT_EQ(r.lane, 7u);
  EXPECT_EQ(r.task.number, 9u);
  EXPECT_EQ(r.task.id, id(1));
  EXPECT_EQ(r.task.parent, id(2));
  EXPECT_EQ(r.task.attempt, 3u);
  EXPECT_EQ(r.task.function, UINT64_MAX);
  EXPECT_EQ(r.task.name, "f");
  EXPECT_EQ(r.task.n_returns, 2u);
  EXPECT_EQ(r.task.caller, RAY_LANG_PYTHON);
  ASSERT_EQ(r.task.args.size(), 2u);
  EXPECT_EQ(r.task.args[0].data, "value");
  ASSERT_EQ(r.task.args[0].oob.size(), 2u);
  EXPECT_EQ(r.task.args[0].oob[0], "one");
  EXPECT_EQ(r.task.args[0].oob[1], "");
  EXPECT_EQ(r.task.args[0].bytes(), 8u);
  EXPECT_TRUE(r.task.args[1].apart);
  EXPECT_EQ(r.task.args[1].format, uint32_t{RAY_FMT_PICKLE5});
  ASSERT_TRUE(reader.next(&r));
  EXPECT_EQ(r.kind, Kind::kTaskRoom);
  EXPECT_EQ(r.lane, UINT64_MAX);
  EXPECT_EQ(r.bytes_done, 5u);
  EXPECT_FALSE(reader.next(&r));
  EXPECT_TRUE(reader.status().ok());
}

TEST(Messages, EveryKindComesOutAsItWentIn) {
  for (int kind = 0; kind < 256; ++kind) {
    Record r = task_record();
    r.kind = static_cast<Kind>(kind);
    r.job = id(5);
    r.number = 3, r.key = 4, r.index = 6, r.flags = 1, r.code = -8, r.language = 2, r.function_kind = 3, r.bytes_done = 9;
    r.more = true;
    r.name = "name", r.bytes = "bytes";
    r.value.given = r.value.apart = true;
    r.value.size = 10;
    r.value.oob_sizes = {11, 0};
    r.done.number = 12, r.done.code = RAY_TASK_FAILED, r.done.flags = kFinal | kDied, r.done.run_ns = 13;
    r.done.results = {Value(), r.task.args[0]};
    std::string once, twice;
    encode(r, &once);
    RecordReader reader(once);
    Record back;
    const bool known = (kind >= 1 && kind <= static_cast<int>(Kind::kJobOver)) ||
                       (kind >= static_cast<int>(Kind::kLaneOpen) && kind <= static_cast<int>(Kind::kReturned));
    ASSERT_EQ(reader.next(&back), known) << kind;
    EXPECT_EQ(reader.status().ok(), known) << kind;
    if (!known) continue;
    EXPECT_EQ(back.size, once.size());
    encode(back, &twice);
    EXPECT_EQ(once, twice) << kind;
  }
}

TEST(Messages, CutAnywhereTheyAreRefused) {
  std::string message;
  encode(task_record(), &message);
  for (size_t n = 1; n < message.size(); ++n) {
    RecordReader reader(std::string_view(message).substr(0, n));
    Record r;
    EXPECT_FALSE(reader.next(&r)) << n;
    EXPECT_EQ(reader.status().code(), RAY_INVALID_ARGUMENT) << n;
  }
}

TEST(Messages, WhatCannotBeIsRefused) {
  auto refused = [](const Record& r) {
    std::string message;
    encode(r, &message);
    RecordReader reader(message);
    Record back;
    return !reader.next(&back) && !reader.status().ok();
  };
  Record r = task_record();
  EXPECT_FALSE(refused(r));
  r.task.number = 0;
  EXPECT_TRUE(refused(r)) << "nobody could answer it";
  r = task_record();
  r.task.id = {};
  EXPECT_TRUE(refused(r));
  r = task_record();
  r.task.n_returns = RAY_MAX_RETURNS + 1;
  EXPECT_TRUE(refused(r));
  r = {};
  r.kind = Kind::kArgument;
  r.value.given = r.value.apart = true;
  r.value.oob_sizes = {INT64_MAX, INT64_MAX, 2};
  EXPECT_TRUE(refused(r)) << "a sum that wraps around";
  r.value.apart = false;
  EXPECT_TRUE(refused(r)) << "an announcement without sizes";
}

// What an answer's records say, put together again.
struct Answer {
  std::vector<std::string> parts;  // by index
  std::vector<Value> announced;
  Record done;
  std::string kept;
};

Answer records_of(Outgoing* out, uint64_t* longest) {
  Answer a;
  a.parts.resize(out->pieces.size());
  a.announced.resize(out->pieces.size());
  uint32_t index = 0;
  for (bool last = false; !last;) {
    Record r;
    last = out->next(3, &r);
    a.kept.clear();
    *longest = std::max(*longest, encode(r, &a.kept));
    RecordReader reader(a.kept);
    EXPECT_TRUE(reader.next(&r));
    EXPECT_EQ(r.lane, 3u);
    if (r.kind == Kind::kResult) index = r.index, a.announced[index] = r.value;
    if (r.kind == Kind::kResultPart) a.parts[index] += r.bytes;
    a.done = r;
  }
  EXPECT_EQ(a.done.kind, Kind::kDone);
  return a;
}

TEST(Outgoing, LongValuesGoInParts) {
  const std::string large(kPart * 2 + 5, 'x'), small = "small", buffer(kInPlace + 1, 'b'), empty;
  const ray_bytes oob[] = {{empty.data(), 0}, {buffer.data(), buffer.size()}, {small.data(), small.size()}};
  Outgoing out;
  out.number = 8;
  for (int i = 0; i < 4; ++i) {
    Outgoing::Piece p;
    p.given = i != 2;
    p.format = RAY_FMT_RAW;
    const std::string& data = i == 0 ? large : i == 1 ? small : empty;
    p.buffer.data = data.data();
    p.buffer.size = data.size();
    if (i == 3) p.buffer.oob = oob, p.buffer.n_oob = 3;
    out.pieces.push_back(std::move(p));
  }
  uint64_t longest = 0;
  const Answer a = records_of(&out, &longest);
  EXPECT_LE(longest, kPart + 64);
  EXPECT_EQ(a.done.done.number, 8u);
  ASSERT_EQ(a.done.done.results.size(), 4u);
  EXPECT_TRUE(a.done.done.results[0].apart);
  EXPECT_EQ(a.parts[0], large);
  EXPECT_EQ(a.announced[0].size, large.size());
  EXPECT_FALSE(a.done.done.results[1].apart);
  EXPECT_EQ(a.done.done.results[1].data, small);
  EXPECT_FALSE(a.done.done.results[2].given);
  EXPECT_TRUE(a.done.done.results[3].apart);
  EXPECT_EQ(a.parts[3], buffer + small);
  EXPECT_EQ(a.announced[3].oob_sizes, (std::vector<uint64_t>{0, buffer.size(), small.size()}));
}

TEST(Outgoing, ManyValuesThatFitOneByOneMakeNoLongRecord) {
  const std::string value(kInPlace / 2, 'v');
  Outgoing out;
  for (int i = 0; i < 40; ++i) {
    Outgoing::Piece p;
    p.given = true;
    p.buffer.data = value.data();
    p.buffer.size = value.size();
    out.pieces.push_back(std::move(p));
  }
  uint64_t longest = 0;
  const Answer a = records_of(&out, &longest);
  EXPECT_LE(longest, kPart + 64 + 40 * 64);
  size_t in_place = 0;
  for (size_t i = 0; i < 40; ++i) {
    const Value& v = a.done.done.results[i];
    in_place += !v.apart;
    EXPECT_EQ(v.apart ? a.parts[i] : std::string(v.data), value) << i;
  }
  EXPECT_GT(in_place, 5u);
  EXPECT_LT(in_place, 40u);
}

TEST(Outgoing, AnErrorTakesTheResultsPlace) {
  int released = 0;
  Outgoing out;
  Outgoing::Piece p;
  p.given = true;
  p.buffer.private_data = &released;
  p.buffer.release = [](ray_buffer* b) {
    ++*static_cast<int*>(b->private_data);
    b->release = nullptr;
  };
  out.pieces.push_back(p);
  out.fail(RAY_TASK_FAILED, std::string(kInPlace * 2, 'e'), kFinal);
  EXPECT_EQ(released, 1);
  uint64_t longest = 0;
  const Answer a = records_of(&out, &longest);
  EXPECT_EQ(a.done.done.code, RAY_TASK_FAILED);
  EXPECT_EQ(a.done.done.flags, kFinal);
  ASSERT_EQ(a.done.done.results.size(), 1u);
  EXPECT_TRUE(a.done.done.results[0].apart);
  ray_code code;
  uint32_t format;
  std::string message, payload;
  ASSERT_TRUE(wire::unpack_error(a.parts[0].data(), a.parts[0].size(), &code, &message, &format, &payload));
  EXPECT_EQ(message.size(), kInPlace * 2);
}

}  // namespace
}  // namespace ray::relay
