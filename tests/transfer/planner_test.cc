// The rules of the planner, one by one.
#include <gtest/gtest.h>

#include <algorithm>

#include "libray/transfer/planner.h"

namespace ray::transfer {
namespace {

using A = PullAction;
const Place kA{2, 1}, kB{3, 1};

Copy copy_of(uint8_t number) {
  Copy copy;
  copy.id.b[0] = number;
  copy.making = 1;
  return copy;
}

struct Case {
  explicit Case(uint64_t room = 10000) : planner({1, 1}, room, room, options()) {
    for (Place p : {kA, kB}) planner.up(p, 0, now, &out);
  }
  static PullOptions options() {
    PullOptions o;
    o.chunk = 100;
    o.inline_max = 50;
    o.window = 300;
    return o;
  }
  void request(uint64_t number, std::vector<Want> wants, Rank rank = Rank::kGet) {
    planner.request({number, rank, std::move(wants)}, now, &out);
  }
  // None of what is to be pinned is here.
  void absent() {
    for (size_t i = 0; i < out.size(); ++i)
      if (out[i].kind == A::kPin && pinned.insert(i).second) planner.absent(out[i].copy, now, &out);
  }
  void chunk(Place from, const Copy& copy, uint64_t size, uint32_t index) {
    Message m;
    m.kind = Kind::kChunk;
    m.copy = copy;
    m.size = size;
    m.chunk = index;
    const std::string bytes(length_of(size, 100, index), 'x');
    m.bytes = bytes;
    planner.message(from, 0, m, now, &out);
  }
  void deny(Place from, const Copy& copy, uint32_t index, Why why, uint64_t size = kUnknownSize) {
    Message m;
    m.kind = Kind::kDeny;
    m.why = why;
    m.copy = copy;
    m.chunk = index;
    m.size = size;
    planner.message(from, 0, m, now, &out);
  }
  void clear() {
    out.clear();
    pinned.clear();
  }
  size_t count(A::Kind kind) const {
    return static_cast<size_t>(std::count_if(out.begin(), out.end(), [&](auto& a) { return a.kind == kind; }));
  }
  std::vector<uint32_t> asked(Place place) const {
    std::vector<uint32_t> chunks;
    for (auto& a : out)
      if (a.kind == A::kSend && a.place == place && a.message.kind == Kind::kAsk && a.message.chunk != kNoChunk)
        chunks.push_back(a.message.chunk);
    std::sort(chunks.begin(), chunks.end());
    return chunks;
  }
  int64_t now = 0;
  PullActions out;
  Planner planner;
  std::set<size_t> pinned;
};

TEST(Planner, WhatIsHereIsReadyAtOnceAndUnpinnedAtTheEnd) {
  Case c;
  c.request(1, {{copy_of(1), 500, {}}});
  c.planner.pinned(copy_of(1), 500, c.now, &c.out);
  EXPECT_EQ(c.count(A::kReady), 1u);
  c.planner.release(1, c.now, &c.out);
  EXPECT_EQ(c.count(A::kUnpin), 1u);
  EXPECT_EQ(c.planner.pulls(), 0u);
}

TEST(Planner, AWindowBoundsWhatIsAskedAndBothSourcesAreUsed) {
  Case c;
  c.request(1, {{copy_of(1), 950, {kA, kB}}});
  c.absent();
  EXPECT_EQ(c.asked(kA).size(), 3u);
  EXPECT_EQ(c.asked(kB).size(), 3u);
  EXPECT_LE(c.planner.asked(kA, 0), 300u);
}

TEST(Planner, InputsOfOneTaskAreAdmittedTogether) {
  Case c(1000);
  c.request(1, {{copy_of(1), 400, {kA}}, {copy_of(2), 400, {kA}}});
  c.request(2, {{copy_of(3), 100, {kA}}, {copy_of(4), 400, {kA}}});
  EXPECT_EQ(c.count(A::kPin), 2u);  // of the second none, though one would fit
  c.planner.release(1, c.now, &c.out);
  EXPECT_EQ(c.count(A::kPin), 4u);
}

TEST(Planner, SmallOnesPassALargeOneForABoundedTime) {
  Case c(1000);
  c.request(1, {{copy_of(1), 600, {kA}}});
  c.request(2, {{copy_of(2), 900, {kA}}});
  c.request(3, {{copy_of(3), 100, {kA}}});
  EXPECT_EQ(c.planner.used(), 700u);
  c.now += 1'000'000'000;
  c.request(4, {{copy_of(4), 100, {kA}}});
  EXPECT_EQ(c.planner.used(), 700u);
  c.planner.release(1, c.now, &c.out);
  c.planner.release(3, c.now, &c.out);
  EXPECT_EQ(c.planner.used(), 1000u);
}

TEST(Planner, TasksThatAreNextGoBeforeGets) {
  Case c(1000);
  c.request(1, {{copy_of(1), 1000, {kA}}});
  c.request(2, {{copy_of(2), 800, {kA}}}, Rank::kGet);
  c.request(3, {{copy_of(3), 800, {kA}}}, Rank::kNext);
  c.clear();
  c.planner.release(1, c.now, &c.out);
  ASSERT_EQ(c.count(A::kPin), 1u);
  EXPECT_EQ(c.out.back().copy, copy_of(3));
}

TEST(Planner, WhatNeverFitsIsSaid) {
  Case c(1000);
  c.request(1, {{copy_of(1), 1001, {kA}}});
  EXPECT_EQ(c.count(A::kTooLarge), 1u);
  EXPECT_EQ(c.planner.requests(), 0u);
}

TEST(Planner, OnlyMissingChunksGoElsewhereWhenASourceDies) {
  Case c;
  c.request(1, {{copy_of(1), 600, {kA, kB}}});
  c.absent();
  const auto first = c.asked(kA), second = c.asked(kB);
  c.chunk(kA, copy_of(1), 600, first[0]);
  for (uint32_t i : second) c.chunk(kB, copy_of(1), 600, i);
  c.clear();
  c.planner.died(kA, c.now, &c.out);
  EXPECT_EQ(c.asked(kB), std::vector<uint32_t>(first.begin() + 1, first.end()));
  c.chunk(kB, copy_of(1), 600, first[1]);
  c.chunk(kB, copy_of(1), 600, first[1]);  // twice
  c.chunk(kB, copy_of(1), 600, first[2]);
  EXPECT_EQ(c.count(A::kWrite), 2u);
  EXPECT_EQ(c.count(A::kSeal), 1u);
  EXPECT_EQ(c.count(A::kReady), 1u);
}

TEST(Planner, WhoIsSilentLosesItsChunksToOthersAndNothingIsLost) {
  Case c;
  c.request(1, {{copy_of(1), 200, {kA}}});
  c.absent();
  ASSERT_EQ(c.asked(kA).size(), 2u);
  c.clear();
  c.planner.location(copy_of(1), 200, kB, c.now, &c.out);
  c.now += 4'000'000'000;
  c.planner.tick(c.now, &c.out);
  EXPECT_EQ(c.asked(kB).size(), 2u);
  EXPECT_EQ(c.count(A::kLost), 0u);
}

TEST(Planner, LostNeedsEvidence) {
  Case c;
  c.request(1, {{copy_of(1), 40, {kA}}});
  c.absent();
  c.now += 100'000'000'000;
  c.planner.tick(c.now, &c.out);
  EXPECT_EQ(c.count(A::kLocate) + c.count(A::kLost), 0u);  // silent, but it lives
  c.now += 1'000'000'000;
  c.planner.tick(c.now, &c.out);
  c.deny(kA, copy_of(1), 0, Why::kAbsent);
  ASSERT_EQ(c.count(A::kLocate), 1u);
  c.planner.located(copy_of(1), c.out.back().round, 40, {kA}, c.now, &c.out);
  EXPECT_EQ(c.count(A::kLost), 0u);  // asked a second time
  c.deny(kA, copy_of(1), 0, Why::kAbsent);
  c.planner.located(copy_of(1), 2, 40, {kA}, c.now, &c.out);
  EXPECT_EQ(c.count(A::kLost), 1u);
  EXPECT_EQ(c.planner.requests(), 0u);
}

TEST(Planner, AnUnknownSizeIsLearntWithTheFirstAnswer) {
  Case c;
  c.request(1, {{copy_of(1), kUnknownSize, {kA}}});
  c.absent();
  c.chunk(kA, copy_of(1), 30, 0);
  EXPECT_EQ(c.count(A::kReady), 1u);
  c.request(2, {{copy_of(2), kUnknownSize, {kA}}});
  c.absent();
  c.deny(kA, copy_of(2), 0, Why::kLarge, 250);
  EXPECT_EQ(c.planner.used(), 280u);
  // Said again, when the size is known: nobody has refused anything.
  c.deny(kA, copy_of(2), 0, Why::kLarge, 250);
  EXPECT_EQ(c.count(A::kRefused), 0u);
}

TEST(Planner, ChunksOfAnotherMakingOrSizeAreNotTaken) {
  Case c;
  c.request(1, {{copy_of(1), 200, {kA}}});
  c.absent();
  Copy other = copy_of(1);
  other.making = 2;
  c.chunk(kA, other, 200, 0);
  EXPECT_EQ(c.count(A::kWrite), 0u);
  c.chunk(kA, copy_of(1), 300, 0);
  EXPECT_EQ(c.count(A::kWrite), 0u);
  EXPECT_EQ(c.count(A::kRefused), 1u);
}

TEST(Planner, WhoGivesUpStopsItsSourcesAndGivesRoomBack) {
  Case c;
  c.request(1, {{copy_of(1), 600, {kA}}});
  c.absent();
  c.planner.release(1, c.now, &c.out);
  EXPECT_EQ(c.count(A::kAbandon), 1u);
  EXPECT_EQ(c.planner.used() + c.planner.asked(kA, 0) + c.planner.pulls(), 0u);
  EXPECT_EQ(c.out.back().message.kind, Kind::kStop);
}

TEST(Planner, LessRoomSendsBackWhatIsNotReady) {
  Case c(1000);
  c.request(1, {{copy_of(1), 400, {kA}}});
  c.planner.pinned(copy_of(1), 400, c.now, &c.out);
  c.request(2, {{copy_of(2), 400, {kA}}});
  c.absent();
  c.planner.room(500, 1000, c.now, &c.out);
  EXPECT_EQ(c.planner.used(), 400u);
  EXPECT_EQ(c.count(A::kAbandon), 1u);
  EXPECT_TRUE(c.planner.stuck());
}

}  // namespace
}  // namespace ray::transfer
