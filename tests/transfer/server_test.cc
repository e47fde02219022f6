// The rules of the server, one by one.
#include <gtest/gtest.h>

#include <algorithm>

#include "libray/transfer/server.h"

namespace ray::transfer {
namespace {

using A = ServeAction;

Copy copy_of(uint8_t number) {
  Copy copy;
  copy.id.b[0] = number;
  copy.making = 1;
  return copy;
}

struct Case {
  Case() : server(options()) {}
  static ServeOptions options() {
    ServeOptions o;
    o.chunk = 100;
    o.inline_max = 50;
    o.disk = 2;
    o.window = 3;
    return o;
  }
  void ask(uint32_t node, const Copy& copy, uint64_t size, uint32_t chunk) {
    Message m;
    m.copy = copy;
    m.size = size;
    m.chunk = chunk;
    server.message({node, 1}, 0, m, now, &out);
  }
  void stop(uint32_t node, const Copy& copy) {
    Message m;
    m.kind = Kind::kStop;
    m.why = Why::kDone;
    m.copy = copy;
    server.message({node, 1}, 0, m, now, &out);
  }
  size_t count(A::Kind kind) const {
    return static_cast<size_t>(std::count_if(out.begin(), out.end(), [&](auto& a) { return a.kind == kind; }));
  }
  size_t denied(Why why) const {
    return static_cast<size_t>(std::count_if(out.begin(), out.end(), [&](auto& a) {
      return a.kind == A::kSend && a.message.kind == Kind::kDeny && a.message.why == why;
    }));
  }
  int64_t now = 0;
  ServeActions out;
  Server server;
};

TEST(Server, PinsWhileItServes) {
  Case c;
  c.ask(2, copy_of(1), 40, 0);
  EXPECT_EQ(c.count(A::kPin), 1u);
  EXPECT_EQ(c.count(A::kBytes), 0u);
  c.server.pinned(copy_of(1), 40, false, c.now, &c.out);
  ASSERT_EQ(c.count(A::kBytes), 1u);
  EXPECT_EQ(c.count(A::kUnpin), 0u);
  c.server.sent(c.out.back().ticket, true, c.now, &c.out);
  EXPECT_EQ(c.count(A::kUnpin), 1u);
  EXPECT_EQ(c.server.copies(), 0u);
}

TEST(Server, WhatIsNotHereIsRefused) {
  Case c;
  c.ask(2, copy_of(1), 40, 0);
  c.server.absent(copy_of(1), c.now, &c.out);
  EXPECT_EQ(c.denied(Why::kAbsent), 1u);
  EXPECT_EQ(c.server.copies(), 0u);
}

TEST(Server, ServesFewReceiversAtATimeAndTellsTheOthersWhoTheyAre) {
  Case c;
  for (uint32_t node : {2u, 3u, 4u}) c.ask(node, copy_of(1), 500, node);
  c.server.pinned(copy_of(1), 500, false, c.now, &c.out);
  EXPECT_EQ(c.count(A::kBytes), 2u);
  ASSERT_EQ(c.denied(Why::kBusy), 1u);
  for (auto& a : c.out)
    if (a.message.why == Why::kBusy) {
      EXPECT_EQ(a.message.peers, (std::vector<Place>{{2, 1}, {3, 1}}));
    }
  c.out.clear();
  c.stop(2, copy_of(1));
  ASSERT_EQ(c.out.size(), 1u);
  EXPECT_EQ(c.out[0].message.kind, Kind::kTurn);
  EXPECT_EQ(c.out[0].place, (Place{4, 1}));
}

TEST(Server, DiskBuffersAndWindowsAreBounded) {
  Case c;
  for (uint32_t chunk = 0; chunk < 6; ++chunk) c.ask(2, copy_of(1), 1000, chunk);
  c.server.pinned(copy_of(1), 1000, true, c.now, &c.out);
  EXPECT_EQ(c.server.from_disk(), 2u);
  c.server.moved(copy_of(1), false);
  c.ask(2, copy_of(1), 1000, 7);
  EXPECT_EQ(c.server.flying(), 3u);
  c.ask(2, copy_of(1), 1000, 7);  // twice
  size_t sent = 0;
  for (size_t i = 0; i < c.out.size(); ++i)
    if (c.out[i].kind == A::kBytes) ++sent, c.server.sent(c.out[i].ticket, true, c.now, &c.out);
  EXPECT_EQ(sent, 7u);
}

TEST(Server, ReceiversTakeTurns) {
  Case c;
  for (uint32_t chunk = 0; chunk < 3; ++chunk) c.ask(2, copy_of(1), 1000, chunk);
  for (uint32_t chunk = 0; chunk < 3; ++chunk) c.ask(3, copy_of(1), 1000, chunk);
  c.server.pinned(copy_of(1), 1000, true, c.now, &c.out);
  std::vector<uint32_t> order;
  for (size_t i = 0; i < c.out.size(); ++i)
    if (c.out[i].kind == A::kBytes) order.push_back(c.out[i].place.node), c.server.sent(c.out[i].ticket, true, c.now, &c.out);
  EXPECT_EQ(order, (std::vector<uint32_t>{2, 3, 2, 3, 2, 3}));
}

TEST(Server, AReceiverServesWhatItHasAndTellsOfMore) {
  Case c;
  c.server.started(copy_of(1), 300, c.now, &c.out);
  c.server.got(copy_of(1), 300, 1, c.now, &c.out);
  c.ask(2, copy_of(1), 300, 1);
  EXPECT_EQ(c.count(A::kBytes), 1u);
  c.ask(2, copy_of(1), 300, 2);
  EXPECT_EQ(c.denied(Why::kNotYet), 1u);
  c.server.got(copy_of(1), 300, 2, c.now, &c.out);
  EXPECT_EQ(c.out.back().message.kind, Kind::kHave);
  EXPECT_TRUE(c.out.back().message.have.test(2));
  c.server.gone(copy_of(1), c.now, &c.out);
  EXPECT_EQ(c.denied(Why::kAbsent), 1u);
}

TEST(Server, TheDeadAndTheIdleMakeRoom) {
  Case c;
  for (uint32_t node : {2u, 3u}) c.ask(node, copy_of(1), 500, node);
  c.server.pinned(copy_of(1), 500, false, c.now, &c.out);
  for (size_t i = 0; i < c.out.size(); ++i)
    if (c.out[i].kind == A::kBytes) c.server.sent(c.out[i].ticket, true, c.now, &c.out);
  EXPECT_EQ(c.server.receivers(copy_of(1)), 2u);
  c.server.died({2, 1}, c.now, &c.out);
  EXPECT_EQ(c.server.receivers(copy_of(1)), 1u);
  c.now += 3'000'000'000;
  c.server.tick(c.now, &c.out);
  EXPECT_EQ(c.server.copies(), 0u);
  EXPECT_EQ(c.count(A::kUnpin), 1u);
}

TEST(Server, ALargeCopyIsNotSentToWhoDoesNotKnowItsSize) {
  Case c;
  c.ask(2, copy_of(1), kUnknownSize, 0);
  c.server.pinned(copy_of(1), 500, false, c.now, &c.out);
  EXPECT_EQ(c.denied(Why::kLarge), 1u);
  EXPECT_EQ(c.count(A::kBytes), 0u);
}

}  // namespace
}  // namespace ray::transfer
