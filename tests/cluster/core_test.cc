// Membership's cores one by one: messages, the head, a member, requests.
#include <gtest/gtest.h>

#include "libray/cluster/calls.h"
#include "libray/cluster/head.h"
#include "libray/cluster/member.h"

namespace ray::cluster {
namespace {

constexpr int64_t kS = 1'000'000'000;

About about(uint8_t number) {
  About a;
  a.id.b[0] = number;
  a.address = "n" + std::to_string(number);
  a.host = "host";
  a.session = "/s";
  a.relay = "tcp://n:1";
  a.pid = number;
  a.start_ns = 7;
  a.resources = {{"CPU", 2}, {"GPU", 0.5}};
  a.labels = {{"zone", "a"}};
  return a;
}

Message join(uint8_t number) {
  Message m;
  m.kind = Kind::kJoin;
  m.about = about(number);
  return m;
}

Message beat(NodeIndex index, uint32_t epoch, uint64_t number) {
  Message m;
  m.kind = Kind::kBeat;
  m.index = index, m.epoch = epoch, m.number = number;
  m.load.available["CPU"] = static_cast<double>(number);
  return m;
}

// A head with its sent messages by peer.
struct Fixture {
  HeadActions actions;
  Head head;
  std::map<Peer, std::vector<Message>> sent;
  std::vector<NodeId> forgotten;
  explicit Fixture(const HeadOptions& o = {}) : head(about(1), about(99).id, o, kS, &actions) { take(); }
  void take() {
    for (HeadAction& a : actions) {
      if (a.kind == HeadAction::kForget) forgotten.push_back(a.id);
      if (a.kind != HeadAction::kSend) continue;
      EXPECT_TRUE(decode(a.text, &sent[a.peer].emplace_back()).ok());
    }
    actions.clear();
  }
  void joins(uint8_t number, int64_t now) {
    head.on_up(number, about(number).id, now, &actions);
    head.on_message(number, join(number), now, &actions);
    take();
  }
  void says(Peer peer, Message m, int64_t now) {
    head.on_message(peer, std::move(m), now, &actions);
    take();
  }
  void ticks(int64_t now) {
    head.tick(now, &actions);
    take();
  }
};

TEST(ClusterMessages, ComeBackAsTheyWere) {
  Message m;
  m.kind = Kind::kWelcome;
  m.index = 3, m.epoch = 9, m.cluster = about(5).id;
  Row row;
  row.index = 2, row.epoch = 4, row.died = 6, row.state = State::kDead, row.cause = "it left", row.since_ns = -5;
  row.about = about(2);
  m.rows = {row, row};
  Message back;
  ASSERT_TRUE(decode(encode(m), &back).ok());
  EXPECT_EQ(back.index, 3u);
  EXPECT_EQ(back.cluster, m.cluster);
  ASSERT_EQ(back.rows.size(), 2u);
  EXPECT_EQ(back.rows[1].about.labels.at("zone"), "a");
  EXPECT_EQ(back.rows[1].about.resources.at("GPU"), 0.5);
  EXPECT_EQ(back.rows[1].about.relay, "tcp://n:1");
  EXPECT_EQ(encode(back), encode(m));
  for (Kind kind : {Kind::kJoin, Kind::kBeat, Kind::kLeave, Kind::kRelay, Kind::kRefused, Kind::kFenced, Kind::kTable,
                    Kind::kEnding, Kind::kRequest, Kind::kAnswer}) {
    m.kind = kind;
    m.from = m.to = 1;
    m.load.held["CPU"] = 1, m.load.queued["GPU"] = 3;
    Message again;
    ASSERT_TRUE(decode(encode(m), &again).ok()) << static_cast<int>(kind);
    EXPECT_EQ(encode(again), encode(m));
  }
}

TEST(ClusterMessages, BytesOfNobodyAreRefused) {
  Message m = join(2);
  const std::string good = encode(m);
  Message out;
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(decode(std::string_view(good).substr(0, n), &out).ok()) << n;
  EXPECT_FALSE(decode(good + "x", &out).ok());
  uint64_t seed = 1;
  for (int round = 0; round < 20000; ++round) {  // whatever comes out, nothing breaks
    std::string bytes = good;
    for (int k = 0; k < 3; ++k) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      bytes[(seed >> 33) % bytes.size()] = static_cast<char>(seed >> 56);
    }
    Message any;
    (void)decode(bytes, &any);
  }
}

TEST(ClusterHead, GivesEachNodeAnIndexOnce) {
  Fixture f;
  f.joins(2, kS);
  f.joins(3, kS);
  ASSERT_EQ(f.sent[2][0].kind, Kind::kWelcome);
  EXPECT_EQ(f.sent[2][0].index, 1u);
  EXPECT_EQ(f.sent[2][0].epoch, 2u);
  EXPECT_EQ(f.sent[3][0].index, 2u);
  EXPECT_EQ(f.sent[3][0].rows.size(), 3u);
  ASSERT_EQ(f.sent[2].size(), 2u);  // it is told of the other
  EXPECT_EQ(f.sent[2][1].rows[0].index, 2u);
  f.says(2, join(2), kS);  // again: the same answer
  EXPECT_EQ(f.sent[2].back().index, 1u);
  Message leave;
  leave.kind = Kind::kLeave;
  leave.index = 2, leave.epoch = 3, leave.text = "it left";
  f.says(3, leave, 2 * kS);
  f.joins(4, 2 * kS);
  EXPECT_EQ(f.sent[4][0].index, 3u);
  EXPECT_EQ(f.head.find(2)->state, State::kDead);
  EXPECT_EQ(f.head.find(2)->died, 4u);
}

TEST(ClusterHead, ADeadNodeIsToldAndThenForgotten) {
  Fixture f;
  f.joins(2, kS);
  f.head.on_down(2, 2 * kS, &f.actions);
  f.ticks(2 * kS);
  f.ticks(2 * kS + kS / 2);
  EXPECT_EQ(f.head.find(1)->state, State::kAlive);
  f.ticks(3 * kS);
  EXPECT_EQ(f.head.find(1)->state, State::kDead);
  f.sent.clear();
  f.head.on_up(12, about(2).id, 4 * kS, &f.actions);
  f.take();
  ASSERT_EQ(f.sent[12].size(), 1u);
  EXPECT_EQ(f.sent[12][0].kind, Kind::kFenced);
  f.says(12, beat(1, 2, 1), 4 * kS);
  f.says(12, join(2), 4 * kS);
  EXPECT_EQ(f.sent[12].back().kind, Kind::kFenced);
  EXPECT_EQ(f.head.find(1)->state, State::kDead);
  f.ticks(70 * kS);
  ASSERT_EQ(f.forgotten.size(), 1u);
  EXPECT_EQ(f.forgotten[0], about(2).id);
}

TEST(ClusterHead, SilenceIsShownAndThenDeadly) {
  Fixture f;
  f.joins(2, kS);
  int64_t now = kS;
  auto to = [&](int64_t until) {
    for (; now < until; now += kS / 4) f.ticks(now);
  };
  to(3 * kS);
  EXPECT_TRUE(f.head.find(1)->silent);
  f.says(2, beat(1, 2, 1), now);
  EXPECT_FALSE(f.head.find(1)->silent);
  EXPECT_EQ(f.head.load(1)->available.at("CPU"), 1);
  f.says(2, beat(1, 7, 2), now);  // of another epoch: nothing
  EXPECT_EQ(f.head.load(1)->available.at("CPU"), 1);
  to(now + 6 * kS);
  EXPECT_EQ(f.head.find(1)->state, State::kDead);
  EXPECT_EQ(f.head.load(1), nullptr);
}

// Its relay is started after the node has joined, and anew when it dies: a row that changes like any other.
TEST(ClusterHead, EveryoneHearsWhereARelayListens) {
  Fixture f;
  f.joins(2, kS);
  f.joins(3, kS);
  Message m;
  m.kind = Kind::kRelay;
  m.index = 1, m.epoch = 2, m.text = "tcp://there:5";
  f.says(2, m, kS);
  for (Peer peer : {2, 3}) {
    ASSERT_EQ(f.sent[peer].back().kind, Kind::kTable);
    EXPECT_EQ(f.sent[peer].back().rows.at(0).about.relay, "tcp://there:5");
  }
  const size_t said = f.sent[3].size();
  f.says(2, m, kS);  // nothing new
  m.text = "tcp://elsewhere:5";
  f.says(3, m, kS);  // of another node
  m.text = std::string(kMaxRelay + 1, 'x');
  f.says(2, m, kS);
  EXPECT_EQ(f.sent[3].size(), said);
  EXPECT_EQ(f.head.find(1)->about.relay, "tcp://there:5");
  f.head.set_relay("tcp://head:6", &f.actions);
  f.take();
  EXPECT_EQ(f.sent[3].back().rows.at(0).about.relay, "tcp://head:6");
}

TEST(ClusterHead, TellsHowEachNodeIsSinceItJoined) {
  Fixture f;
  f.head.on_up(2, about(2).id, kS, &f.actions);
  f.head.on_message(2, join(2), kS, &f.actions);
  auto told = [&f] {
    std::vector<NodeIndex> out;
    for (const HeadAction& a : f.actions)
      if (a.kind == HeadAction::kLoad) out.push_back(a.node);
    f.take();
    return out;
  };
  EXPECT_EQ(told(), std::vector<NodeIndex>{1});
  EXPECT_EQ(f.head.load(1)->available, about(2).resources);
  Message m = beat(1, 2, 1);
  m.load.held = {{"CPU", 1}, {"another", 1}};
  m.load.queued = {{"GPU", 7}, {"another", 1}};
  f.head.on_message(2, m, kS, &f.actions);
  EXPECT_EQ(told(), std::vector<NodeIndex>{1});
  EXPECT_EQ(f.head.load(1)->held, (wire::Resources{{"CPU", 1}}));
  EXPECT_EQ(f.head.load(1)->queued, (wire::Resources{{"GPU", 7}}));
  f.head.on_message(2, m, kS, &f.actions);  // again: it is no news
  EXPECT_TRUE(told().empty());
  f.head.set_load({}, &f.actions);
  EXPECT_EQ(told(), std::vector<NodeIndex>{kHead});
}

TEST(ClusterHead, WhoLiesAboutItselfIsRefused) {
  Fixture f;
  f.head.on_up(2, about(2).id, kS, &f.actions);
  f.says(2, beat(0, 1, 1), kS);
  EXPECT_EQ(f.sent[2].back().kind, Kind::kRefused);
  f.says(2, join(3), kS);
  EXPECT_EQ(f.sent[2].back().kind, Kind::kRefused);
  EXPECT_EQ(f.head.rows().size(), 1u);
}

TEST(ClusterHead, KeepsABoundedNumberOfTheDead) {
  HeadOptions o;
  o.max_dead = 3;
  o.forget_ns = kS;
  Fixture f(o);
  int64_t now = kS;
  for (uint8_t i = 2; i < 40; ++i) {
    f.joins(i, now);
    f.head.on_down(i, now, &f.actions);
    for (int k = 0; k < 12; ++k) f.ticks(now += kS / 4);
  }
  EXPECT_EQ(f.forgotten.size(), 38u);
  EXPECT_EQ(f.head.rows().size(), 4u);
  EXPECT_EQ(f.head.deadline(), INT64_MAX);
}

TEST(ClusterHead, WhoSaysTooMuchOfItselfIsRefused) {
  Fixture f;
  f.head.on_up(2, about(2).id, kS, &f.actions);
  Message m = join(2);
  m.about.labels["long"] = std::string(kMaxAbout, 'x');
  f.says(2, m, kS);
  ASSERT_EQ(f.sent[2].back().kind, Kind::kRefused);
  EXPECT_NE(f.sent[2].back().text.find("65536 are the most"), std::string::npos) << f.sent[2].back().text;
  EXPECT_EQ(f.head.rows().size(), 1u);
  f.joins(3, kS);
  Message leave;
  leave.kind = Kind::kLeave;
  leave.index = 1, leave.epoch = 2, leave.text = std::string(60'000, 'x');
  f.says(3, leave, kS);
  EXPECT_EQ(f.head.find(1)->cause.size(), kMaxCause);
}

TEST(ClusterHead, AHeartbeatIsKeptOnlyForWhatTheNodeHas) {
  Fixture f;
  f.joins(2, kS);
  Message m = beat(1, 2, 1);
  m.load.available["another"] = 1;
  f.says(2, m, kS);
  EXPECT_EQ(f.head.load(1)->available, (wire::Resources{{"CPU", 1}}));
}

// 40 nodes that say as much of themselves as they may: 2.5 MB of rows, and no message has more than 1 MiB.
TEST(ClusterHead, ALargeTableTravelsInParts) {
  HeadActions actions;
  Head head(about(1), about(99).id, {}, kS, &actions);
  Member member(about(2), "head:1", {}, kS);
  MemberActions said;
  auto id = [](uint32_t number) {
    About a = about(2);
    a.id.b[1] = static_cast<uint8_t>(number);
    return a;
  };
  for (uint32_t i = 1; i <= 40; ++i) {
    Message m;
    m.kind = Kind::kJoin;
    m.about = id(i);
    m.about.labels["long"] = std::string(63 << 10, 'x');
    head.on_up(i, m.about.id, kS, &actions);
    actions.clear();
    head.on_message(i, m, kS, &actions);
  }
  member.on_up(1, about(1).id, kS, &said);
  for (HeadAction& a : actions) {
    if (a.kind != HeadAction::kSend || a.peer != 40) continue;
    EXPECT_LT(a.text.size(), 1u << 20);
    Message m;
    ASSERT_TRUE(decode(a.text, &m).ok());
    EXPECT_FALSE(member.joined());
    member.on_message(1, std::move(m), kS, &said);
  }
  EXPECT_TRUE(member.joined());
  EXPECT_EQ(member.rows().size(), 41u);
}

TEST(ClusterHead, HandsRequestsOnAndAnswersForTheDead) {
  Fixture f;
  f.joins(2, kS);
  f.joins(3, kS);
  Message m;
  m.kind = Kind::kRequest;
  m.from = 7;  // it may say what it likes
  m.to = 2, m.number = 5, m.op = 1, m.text = "x";
  f.says(2, m, kS);
  ASSERT_EQ(f.sent[3].back().kind, Kind::kRequest);
  EXPECT_EQ(f.sent[3].back().from, 1u);
  m.to = 9;
  f.says(2, m, kS);
  EXPECT_EQ(f.sent[2].back().kind, Kind::kAnswer);
  EXPECT_EQ(f.sent[2].back().code, RAY_NODE_DIED);
}

struct MemberFixture {
  MemberActions actions;
  Member member{about(2), "head:1", {}, kS};
  std::string why;
  int32_t code = 0;
  std::vector<Message> sent;
  void take() {
    for (MemberAction& a : actions) {
      if (a.kind == MemberAction::kEnd) why = a.text, code = a.code;
      if (a.kind != MemberAction::kSend) continue;
      EXPECT_TRUE(decode(a.text, &sent.emplace_back()).ok());
    }
    actions.clear();
  }
  void joins() {
    member.on_up(1, about(1).id, kS, &actions);
    Message m;
    m.kind = Kind::kWelcome;
    m.index = 4, m.epoch = 8;
    says(m);
    EXPECT_TRUE(member.joined());
  }
  void says(Message m, int64_t now = kS) {
    member.on_message(1, std::move(m), now, &actions);
    take();
  }
  void until(int64_t from, int64_t to) {
    for (int64_t now = from; now <= to; now += kS / 4) member.tick(now, &actions);
    take();
  }
};

TEST(ClusterMember, SaysWhyItDidNotJoin) {
  MemberFixture f;
  f.until(kS, 12 * kS);
  EXPECT_EQ(f.code, RAY_UNAVAILABLE);
  EXPECT_NE(f.why.find("head:1"), std::string::npos) << f.why;
  MemberFixture g;
  g.member.on_refused("another token", kS, &g.actions);
  g.take();
  EXPECT_NE(g.why.find("another token"), std::string::npos) << g.why;
}

TEST(ClusterMember, EndsWithoutAHeadButNotForItsOwnPause) {
  MemberFixture f;
  f.joins();
  f.member.on_down(1, 2 * kS, &f.actions);
  f.member.on_up(1, about(1).id, 4 * kS, &f.actions);  // in time
  f.until(kS, 6 * kS);
  EXPECT_EQ(f.why, "");
  f.member.on_down(1, 6 * kS, &f.actions);
  f.until(30 * kS, 32 * kS);  // it was stopped
  EXPECT_EQ(f.why, "");
  f.until(32 * kS, 34 * kS);
  EXPECT_EQ(f.code, RAY_NODE_DIED);
  EXPECT_NE(f.why.find("is gone"), std::string::npos) << f.why;
}

TEST(ClusterMember, EndsWhenItIsFencedOrAnotherHeadAnswers) {
  MemberFixture f;
  f.joins();
  Message m;
  m.kind = Kind::kFenced;
  m.epoch = 8, m.text = "nothing was heard of it";
  f.says(m);
  EXPECT_EQ(f.code, RAY_NODE_DIED);
  EXPECT_NE(f.why.find("declared dead"), std::string::npos) << f.why;
  MemberFixture g;
  g.joins();
  g.member.on_down(1, kS, &g.actions);
  g.member.on_up(1, about(7).id, 2 * kS, &g.actions);
  g.take();
  EXPECT_NE(g.why.find("another one answers"), std::string::npos) << g.why;
}

Message table(NodeIndex from, NodeIndex to, State state) {
  Message m;
  m.kind = Kind::kTable;
  for (NodeIndex i = from; i < to; ++i) {
    Row row;
    row.index = i, row.epoch = i + 1, row.state = state, row.died = state == State::kDead ? 1000 - i : 0;
    m.rows.push_back(row);
  }
  return m;
}

TEST(ClusterMember, KeepsABoundedNumberOfTheDead) {
  MemberActions out;
  MemberOptions o;
  o.max_dead = 3;
  Member member(about(2), "head:1", o, kS);
  member.on_up(1, about(1).id, kS, &out);
  Message m;
  m.kind = Kind::kWelcome;
  m.index = 4, m.epoch = 8;
  member.on_message(1, m, kS, &out);
  member.on_message(1, table(5, 10, State::kAlive), kS, &out);
  member.on_message(1, table(10, 40, State::kDead), kS, &out);
  std::vector<NodeIndex> kept;
  for (const auto& [index, row] : member.rows()) kept.push_back(index);
  EXPECT_EQ(kept, (std::vector<NodeIndex>{5, 6, 7, 8, 9, 10, 11, 12}));  // those that died last
}

// The head answers for a node that is dead; the news of the death may have come first.
TEST(ClusterMember, HearsThatWhomItAsksIsDead) {
  MemberFixture f;
  f.joins();
  f.says(table(5, 6, State::kDead));
  Message m;
  m.kind = Kind::kAnswer;
  m.from = 5, m.to = 4, m.number = 1, m.code = RAY_NODE_DIED;
  f.member.on_message(1, m, kS, &f.actions);
  ASSERT_EQ(f.actions.size(), 1u);
  EXPECT_EQ(f.actions[0].kind, MemberAction::kAnswer);
  f.actions.clear();
  m.kind = Kind::kRequest;
  f.member.on_message(1, m, kS, &f.actions);
  EXPECT_TRUE(f.actions.empty());
}

TEST(ClusterMember, IsNoHeadForOthers) {
  MemberFixture f;
  f.joins();
  f.says(join(3));
  EXPECT_EQ(f.sent.back().kind, Kind::kRefused);
}

TEST(ClusterCalls, ARequestThatComesTwiceIsServedOnce) {
  Calls server;
  CallActions out;
  Message m;
  m.kind = Kind::kRequest;
  m.from = 3, m.number = 9;
  server.on_request(m, &out);
  server.on_request(m, &out);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].kind, CallAction::kServe);
  server.answer(3, 9, RAY_OK, "yes", &out);
  server.on_request(m, &out);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[2].message.text, "yes");
  out.clear();
  server.answer(3, 9, RAY_OK, "no", &out);  // it has its answer
  EXPECT_TRUE(out.empty());
}

TEST(ClusterCalls, WhatIsKeptIsBounded) {
  CallOptions o;
  o.kept_answers = 4;
  o.kept_bytes = 100;
  Calls server(o);
  CallActions out;
  for (uint64_t n = 1; n < 50; ++n) {
    Message m;
    m.kind = Kind::kRequest;
    m.from = static_cast<NodeIndex>(n % 3), m.number = n;
    server.on_request(m, &out);
    server.answer(m.from, n, RAY_OK, std::string(n % 5 * 20, 'x'), &out);
    Row dead;
    dead.index = static_cast<NodeIndex>((n + 1) % 7);
    if (n % 9 == 0) server.on_dead(dead, &out);
  }
  out.clear();
  Message m;
  m.kind = Kind::kRequest;
  m.from = 49 % 3, m.number = 49;
  server.on_request(m, &out);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].kind, CallAction::kSend);
  m.from = 1, m.number = 1;
  server.on_request(m, &out);
  EXPECT_EQ(out[1].kind, CallAction::kServe);  // forgotten
}

TEST(ClusterCalls, ACallEndsOnce) {
  Calls c;
  CallActions out;
  const uint64_t a = c.call(2, 1, "x", 5 * kS, &out), b = c.call(3, 1, "x", 5 * kS, &out);
  out.clear();
  Message m;
  m.kind = Kind::kAnswer;
  m.from = 3, m.number = a;  // of another node than was asked
  c.on_answer(m, &out);
  EXPECT_TRUE(out.empty());
  Row dead;
  dead.index = 2;
  dead.cause = "it left";
  c.on_dead(dead, &out);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].code, RAY_NODE_DIED);
  c.tick(6 * kS, &out);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[1].number, b);
  EXPECT_NE(out[1].text.find("node 3"), std::string::npos);
  m.number = b;
  c.on_answer(m, &out);
  EXPECT_EQ(out.size(), 2u);
  EXPECT_EQ(c.deadline(), INT64_MAX);
}

}  // namespace
}  // namespace ray::cluster
