// Records of the node-local protocol: what is written is read as the same, and what is too short is refused.
#include "libray/wire/records.h"

#include <gtest/gtest.h>

#include "ray.h"

using namespace ray;
using namespace ray::wire;

namespace {

ObjectId id_of(uint8_t n) {
  ObjectId id;
  id.b[0] = n;
  return id;
}

template <class Head>
std::string joined(const Head& head, std::string_view tail) {
  return std::string(reinterpret_cast<const char*>(&head), sizeof head).append(tail);
}

// Every shorter record is refused, and read as nothing.
template <class Record>
void expect_whole(const std::string& bytes) {
  for (size_t n = 0; n < bytes.size(); ++n) {
    Record r;
    EXPECT_FALSE(read(std::string_view(bytes).substr(0, n), &r)) << n << " of " << bytes.size();
  }
  Record r;
  EXPECT_TRUE(read(bytes, &r));
  EXPECT_TRUE(read(bytes + "more", &r)) << "later versions append";
}

TEST(Records, ACreationIsReadAsItWasWritten) {
  ActorCreateRecord r;
  r.head.id = id_of(7);
  r.name = "name", r.ns = "ns", r.klass = "Class", r.metadata = std::string_view("m\0d", 3), r.resources = "res";
  r.record = "the record";
  const std::vector<ObjectId> needs{id_of(1), id_of(2)};
  const std::string tail = write(&r, needs);
  const std::string bytes = joined(r.head, tail);
  ActorCreateRecord same;
  ASSERT_TRUE(read(bytes, &same));
  EXPECT_EQ(same.head.id, id_of(7));
  EXPECT_EQ(same.name, "name");
  EXPECT_EQ(same.ns, "ns");
  EXPECT_EQ(same.klass, "Class");
  EXPECT_EQ(same.metadata.size(), 3u);
  EXPECT_EQ(same.resources, "res");
  EXPECT_EQ(same.record, "the record");
  EXPECT_EQ(same.dependencies.vector(), needs);
  expect_whole<ActorCreateRecord>(bytes);
}

TEST(Records, SizesThatLieAreRefused) {
  ActorCreateRecord r;
  r.name = "name";
  std::string tail = write(&r, {});
  r.head.name_size = UINT32_MAX;
  EXPECT_FALSE(read(joined(r.head, tail), &r));
  UpObj o{};
  o.n_contained = UINT32_MAX;  // times the size of an id: more than 32 bits
  ObjectRecord object;
  EXPECT_FALSE(read(joined(o, std::string(64, 'x')), &object));
  DnActorInit init{};
  init.n_gpus = 0x40000001;
  ActorInitRecord actor;
  EXPECT_FALSE(read(joined(init, std::string(8, 'x')), &actor));
  TaskHeader t{};
  t.name_size = 65535;
  TaskRecord task;
  EXPECT_FALSE(read(joined(t, "short"), &task));
}

TEST(Records, ObjectsAndResultsNameWhatTheyContain) {
  const std::vector<ObjectId> ids{id_of(3), id_of(4), id_of(5)};
  UpObjResult head{};
  head.id = id_of(9), head.n_contained = 3;
  const std::string bytes = joined(head, list_bytes(ids));
  ResultRecord r;
  ASSERT_TRUE(read(bytes, &r));
  EXPECT_EQ(r.contained[1], id_of(4));
  std::vector<ObjectId> out;
  r.contained.copy_to(&out);
  EXPECT_EQ(out, ids);
  expect_whole<ResultRecord>(bytes);
}

TEST(Records, AnActorsFirstRecordComesWithItsUnits) {
  ActorInitRecord r;
  r.record = "0123456";  // what follows is aligned to nothing
  const std::string tail = write(&r, {1, 0x02000003});
  const std::string bytes = joined(r.head, tail);
  ActorInitRecord same;
  ASSERT_TRUE(read(bytes, &same));
  EXPECT_EQ(same.record, "0123456");
  EXPECT_EQ(same.units.vector(), (std::vector<uint32_t>{1, 0x02000003}));
  expect_whole<ActorInitRecord>(bytes);
}

TEST(Records, WhatAnActorSays) {
  UpActor head{};
  head.size = sizeof(ActorFacts);
  const ActorFacts facts{1, 2, 3, 4};
  const std::string bytes = joined(head, bytes_of(&facts, sizeof facts));
  ActorSaysRecord r;
  ActorFacts same{};
  ASSERT_TRUE(read(bytes, &r) && r.facts(&same));
  EXPECT_EQ(same.max_pending_calls, 4u);
  expect_whole<ActorSaysRecord>(bytes);
  head.size = 3;
  ASSERT_TRUE(read(joined(head, "why"), &r));
  EXPECT_EQ(r.text, "why");
  EXPECT_FALSE(r.facts(&same));
}

TEST(Records, ATaskIsTakenApart) {
  TaskHeader h{};
  h.name_size = 3, h.method_size = 9, h.n_args = 2;
  std::vector<uint8_t> bytes(task_head_size(3, 9) + value_size(5) + value_size(sizeof(StoreRef)));
  uint8_t* at = put_padded(put_padded(put_head(bytes.data(), h), "abc", 3), "method123", 9);
  at = put_value(at, {RAY_FMT_RAW, kPlain, 0, 5}, "hello");
  const StoreRef ref{id_of(8), {1, 2, 3, 4}};
  at = put_value(at, {RAY_FMT_MSGPACK, kStore, 0, sizeof ref}, &ref);
  ASSERT_EQ(at, bytes.data() + bytes.size());
  TaskRecord r;
  ASSERT_TRUE(read(bytes_of(bytes.data(), bytes.size()), &r));
  EXPECT_EQ(r.name, "abc");
  EXPECT_EQ(r.method, "method123");
  Parts parts(r.args);
  Value v;
  ASSERT_TRUE(read(&parts, &v));
  EXPECT_EQ(bytes_of(v.bytes, v.head.size), "hello");
  ASSERT_TRUE(read(&parts, &v));
  EXPECT_EQ(v.ref().id, id_of(8));
  EXPECT_EQ(v.ref().location.size, 4u);
  EXPECT_FALSE(read(&parts, &v));
}

TEST(Records, AValueInTheStoreHasItsWholeReference) {
  std::vector<uint8_t> bytes(value_size(8));
  put_value(bytes.data(), {RAY_FMT_RAW, kStore, 0, 8}, "12345678");
  Parts parts(bytes.data(), bytes.size());
  Value v;
  EXPECT_FALSE(read(&parts, &v));
}

TEST(Records, TheLastPaddingMayBeMissing) {
  std::vector<uint8_t> bytes(value_size(5));
  put_value(bytes.data(), {RAY_FMT_RAW, kPlain, 0, 5}, "hello");
  Parts parts(bytes.data(), bytes.size() - 3);
  Value v;
  EXPECT_TRUE(read(&parts, &v));
  EXPECT_EQ(parts.left(), 0u);
  Parts shorter(bytes.data(), bytes.size() - 4);
  EXPECT_FALSE(read(&shorter, &v));
}

}  // namespace
