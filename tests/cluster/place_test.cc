// Where demands should go: what a node keeps of its questions, the head's scheduler alone, and both together over real
// sessions, all sides in this process.
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "libray/base/clock.h"
#include "libray/node/global_side.h"
#include "libray/node/node.h"
#include "libray/wire/cursor.h"

namespace ray::node {
namespace {

using cluster::kNoNode;
using cluster::NodeIndex;
using cluster::Question;
using cluster::Questions;
using cluster::Row;
using cluster::State;
using cluster::Verdict;
using wire::Resources;

constexpr int64_t kMs = 1'000'000;

TaskId task(uint32_t number) {
  TaskId id;
  std::memcpy(id.b, &number, sizeof number);
  id.b[20] = 1;
  return id;
}

// ---- questions of one node

struct Asker {
  Placing placing{{{"CPU", 4}}};
  std::vector<std::vector<Placing::Asked>> requests;
  bool ask(uint32_t t, Resources needs = {{"CPU", 1}}, int64_t now = 0, uint32_t attempt = 0) {
    return placing.ask({0, task(t), attempt, false, std::move(needs)}, [](const Placed&) {}, now);
  }
  std::vector<uint64_t> numbers() {
    requests = placing.take();
    std::vector<uint64_t> out;
    for (const auto& r : requests)
      for (const auto& a : r) out.push_back(a.question.number);
    return out;
  }
  void answer(bool nowhere, int64_t now) {
    for (const auto& r : requests)
      for (const auto& a : r) placing.answered(a, nowhere, now);
  }
  Resources queued(int64_t now, Resources all = {{"CPU", 100}}) {
    placing.subtract_open(&all, now);
    return all;
  }
};

TEST(Placing, AQuestionIsTheSameUntilItHasAPlace) {
  Asker a;
  EXPECT_TRUE(a.ask(1));
  EXPECT_FALSE(a.ask(1));  // another worker for the same
  EXPECT_FALSE(a.ask(1, {{"CPU", 1}}, 0, 1));
  EXPECT_EQ(a.numbers(), (std::vector<uint64_t>{1, 2, 3}));
  a.answer(true, 100 * kMs);
  EXPECT_TRUE(a.ask(1, {{"CPU", 1}}, 200 * kMs));
  EXPECT_FALSE(a.ask(1, {{"CPU", 1}}, 200 * kMs));
  EXPECT_FALSE(a.ask(1, {{"CPU", 1}}, 200 * kMs));  // one more
  EXPECT_EQ(a.numbers(), (std::vector<uint64_t>{1, 2, 4}));
  a.answer(false, 200 * kMs);
  a.ask(1, {{"CPU", 1}}, 300 * kMs);
  a.ask(1, {{"CPU", 1}}, 300 * kMs, 1);
  EXPECT_EQ(a.numbers(), (std::vector<uint64_t>{5, 3}));  // what had a place is over
  a.answer(true, 300 * kMs);
  EXPECT_EQ(a.placing.open(), 2u);
  a.ask(2, {}, 300 * kMs + Placing::kForgetNs);
  EXPECT_EQ(a.placing.open(), 1u);  // nobody asked for the others any more
  a.ask(1, {{"CPU", 1}}, 301 * kMs + Placing::kForgetNs);
  EXPECT_EQ(a.numbers(), (std::vector<uint64_t>{6, 7}));
}

TEST(Placing, WhatIsAskedForDoesNotWaitTwice) {
  Asker a;
  a.ask(1), a.ask(2, {{"CPU", 0.5}}), a.ask(3, {{"CPU", 5}}), a.ask(4, {{"CPU", 1}, {"x", 1}});  // these two: never here
  EXPECT_EQ(a.queued(0), (Resources{{"CPU", 98.5}}));
  a.numbers();
  EXPECT_EQ(a.queued(0), (Resources{{"CPU", 98.5}}));
  a.answer(true, 0);
  EXPECT_EQ(a.queued(100 * kMs), (Resources{{"CPU", 98.5}}));
  EXPECT_EQ(a.queued(100 * kMs, {{"CPU", 1.5}, {"y", 2}}), (Resources{{"y", 2}}));
  a.ask(1, {{"CPU", 2}}, 300 * kMs);  // it wants more now
  EXPECT_EQ(a.queued(300 * kMs), (Resources{{"CPU", 97.5}}));
  EXPECT_EQ(a.queued(Placing::kForgetNs), (Resources{{"CPU", 98}}));
  a.numbers();
  a.answer(false, Placing::kForgetNs);
  EXPECT_EQ(a.queued(Placing::kForgetNs), (Resources{{"CPU", 100}}));
  EXPECT_EQ(a.placing.open(), 0u);
}

TEST(Placing, RequestsAreBounded) {
  Asker a;
  for (uint32_t i = 0; i < 2500; ++i) a.ask(i);
  EXPECT_EQ(a.numbers().size(), 2500u);
  ASSERT_EQ(a.requests.size(), 3u);
  EXPECT_EQ(a.requests[0].size(), cluster::kMaxQuestions);
  a.answer(false, 0);
  Resources many;
  for (int i = 0; i < 200; ++i) many[std::string(200, 'x') + std::to_string(i)] = 1;
  for (uint32_t i = 0; i < 20; ++i) a.ask(i, many);  // 42 KB each
  EXPECT_EQ(a.numbers().size(), 20u);
  EXPECT_EQ(a.requests.size(), 3u);
}

// ---- the head's scheduler alone

struct Alone {
  GlobalSide side{1};
  int64_t now = 1'000'000'000;
  uint64_t number = 1;
  std::map<NodeIndex, Row> rows;
  std::map<NodeIndex, cluster::Load> loads;

  void node(NodeIndex index, Resources total, const std::string& relay = "tcp://n:1") {
    Row& row = rows[index];
    row.index = index, row.epoch = index + 1;
    row.about.resources = total;
    row.about.relay = relay;
    loads[index].available = total;
    side.row(row, now);
  }
  void change(NodeIndex index, const std::string& relay, State state = State::kAlive) {
    rows[index].about.relay = relay;
    rows[index].state = state;
    side.row(rows[index], now);
  }
  void beat(NodeIndex index) { side.load(index, loads[index], now); }
  std::vector<Verdict> ask(NodeIndex from, Questions q) {
    q.load = loads[from];
    auto body = side.place(from, cluster::encode(q), now);
    EXPECT_TRUE(body.ok()) << body.status().message();
    std::vector<Verdict> out;
    EXPECT_TRUE(body.ok() && cluster::decode(*body, &out).ok());
    EXPECT_EQ(out.size(), q.questions.size());
    EXPECT_EQ(side.scheduler().check(), "");
    return out;
  }
  Verdict ask(NodeIndex from, Resources needs, uint64_t as = 0, bool actor = false) {
    Questions q;
    q.questions.push_back({as ? as : number++, task(7), 0, actor, std::move(needs)});
    return ask(from, q).at(0);
  }
  void rest(int64_t ns) {  // all nodes live on
    for (const int64_t end = now + ns; now < end; now += 50 * kMs) {
      for (const auto& [index, row] : rows)
        if (row.state != State::kDead) beat(index);
      side.tick(now);
    }
  }
};

TEST(GlobalSide, NamesANodeThatHasWhatIsNeeded) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 1}, {"x", 2}});
  const Verdict v = a.ask(0, {{"x", 1}});
  EXPECT_EQ(v.node, 1u);
  EXPECT_EQ(v.epoch, 2u);
  EXPECT_EQ(a.ask(0, Resources{}).node, 0u);  // nothing is gained by a move
}

TEST(GlobalSide, ABusyNodesTaskGoesToAnIdleOneAndTwoBusyOnesKeepTheirs) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 1}});
  a.loads[0].available["CPU"] = 0;  // what the question says of it counts, not the last heartbeat
  EXPECT_EQ(a.ask(0, {{"CPU", 1}}).node, 1u);
  a.rest(1100 * kMs);
  a.loads[1].available["CPU"] = 0;
  a.beat(1);
  EXPECT_EQ(a.ask(0, {{"CPU", 1}}).node, 0u);
}

TEST(GlobalSide, WithoutARelayANodeIsOfferedToNobody) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 1}, {"x", 1}}, "");
  Verdict v = a.ask(0, {{"x", 1}});
  EXPECT_EQ(v.node, kNoNode);
  EXPECT_FALSE(v.infeasible) << v.text;  // its relay may come
  EXPECT_GT(v.again_ns, 0);
  a.change(1, "tcp://n:2");
  a.rest(50 * kMs);  // who asked first has the first place
  EXPECT_EQ(a.ask(0, {{"x", 1}}).node, 1u);
  a.change(1, "");
  EXPECT_EQ(a.ask(0, {{"x", 1}}).node, kNoNode);
  a.change(1, "tcp://n:3", State::kDraining);
  v = a.ask(0, {{"x", 1}});
  EXPECT_EQ(v.node, kNoNode);
  EXPECT_TRUE(v.infeasible);
}

TEST(GlobalSide, WhatNobodyHasIsInfeasibleAndSaysWhatIsMissing) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 2}});
  Verdict v = a.ask(0, {{"y", 1}});
  EXPECT_EQ(v.node, kNoNode);
  EXPECT_TRUE(v.infeasible);
  EXPECT_GT(v.again_ns, 0);
  EXPECT_NE(v.text.find("'y'"), std::string::npos) << v.text;
  v = a.ask(0, {{"CPU", 3}});
  EXPECT_TRUE(v.infeasible);
  a.node(2, {{"CPU", 3}});
  a.rest(50 * kMs);
  EXPECT_EQ(a.ask(0, {{"CPU", 3}}).node, 2u);
  v = a.ask(0, {{"CPU", 3}}, 0, true);
  EXPECT_EQ(v.node, 2u);
  a.rest(100 * kMs);
  v = a.ask(0, {{"CPU", 3}}, 0, true);  // an actor is to have it for good, and one does
  EXPECT_EQ(v.node, kNoNode);
  EXPECT_FALSE(v.infeasible);
}

TEST(GlobalSide, ADeadNodeIsNeverNamedAgain) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 1}, {"x", 1}});
  const uint64_t number = a.number;
  EXPECT_EQ(a.ask(0, {{"x", 1}}).node, 1u);
  EXPECT_EQ(a.ask(0, {{"x", 1}}, number).node, 1u);  // the answer was lost: the same one
  a.change(1, "tcp://n:1", State::kDead);
  EXPECT_EQ(a.ask(0, {{"x", 1}}, number).node, kNoNode);
  a.beat(1);  // late
  const Verdict v = a.ask(0, {{"x", 1}});
  EXPECT_EQ(v.node, kNoNode);
  EXPECT_TRUE(v.infeasible);
  Questions q;
  EXPECT_FALSE(a.side.place(1, cluster::encode(q), a.now).ok());  // what it asks counts no more
}

TEST(GlobalSide, AFullNodeTakesMoreWhenItsLineIsShort) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 2}});
  a.loads[0].available["CPU"] = 0;
  a.loads[0].queued["CPU"] = 50;
  a.loads[1].available["CPU"] = 0;
  a.loads[1].queued["CPU"] = 4;
  a.rest(100 * kMs);
  const uint64_t first = a.number;
  EXPECT_EQ(a.ask(0, {{"CPU", 1}}).node, kNoNode);
  EXPECT_EQ(a.ask(0, {{"CPU", 1}}).node, kNoNode);
  a.loads[1].queued["CPU"] = 2;
  a.rest(100 * kMs);  // a place was found for whoever came first, and counts
  const Verdict one = a.ask(0, {{"CPU", 1}}, first);
  EXPECT_EQ(one.node, 1u);
  EXPECT_EQ(a.ask(0, {{"CPU", 1}}, first).node, 1u);
}

TEST(GlobalSide, WhoNoLongerAsksHoldsNobodyUp) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 1}});
  for (NodeIndex n : {0, 1}) a.loads[n].available["CPU"] = 0, a.loads[n].queued["CPU"] = 50;
  a.rest(100 * kMs);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(a.ask(0, {{"CPU", 1}}).node, kNoNode);
  EXPECT_EQ(a.side.scheduler().waiting(), 20u);
  a.rest(500 * kMs);
  EXPECT_EQ(a.side.scheduler().waiting(), 0u);
}

TEST(GlobalSide, AHundredAtOnceSpread) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 64}});
  a.node(2, {{"CPU", 64}});
  a.loads[0].available["CPU"] = 0;
  Questions q;
  for (int i = 0; i < 100; ++i) q.questions.push_back({a.number++, task(7), 0, false, {{"CPU", 1}}});
  std::map<NodeIndex, int> n;
  for (const Verdict& v : a.ask(0, q)) ++n[v.node];
  EXPECT_EQ(n[1] + n[2], 100);
  EXPECT_LE(std::max(n[1], n[2]), 65);
}

TEST(GlobalSide, SaysWhy) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 1}, {"x", 1}});
  EXPECT_EQ(a.side.why(task(7)), "");
  a.ask(0, {{"x", 1}});
  std::string text = a.side.why(task(7));
  EXPECT_EQ(text.rfind(task(7).hex(), 0), 0u) << text;
  EXPECT_NE(text.find("placed on node 1 (epoch 2)"), std::string::npos) << text;
  a.ask(0, {{"y", 1}});
  text = a.side.why(task(7));
  EXPECT_NE(text.find("infeasible now"), std::string::npos) << text;
  for (uint32_t i = 0; i < 5; ++i) {
    Questions q;
    for (uint32_t k = 0; k < 1000; ++k) q.questions.push_back({a.number++, task(1000 * (i + 1) + k), 0, false, {{"CPU", 1}}});
    a.ask(0, q);
  }
  EXPECT_EQ(a.side.why(task(7)), "");  // what is remembered is bounded
  EXPECT_NE(a.side.why(task(5999)), "");
}

TEST(GlobalSide, WhatNodesSayOfThemselvesBreaksNothing) {
  Alone a;
  a.node(0, {{"CPU", 1}});
  a.node(1, {{"CPU", 1e13}, {"x", 1e-9}, {std::string(10000, 'n'), 1}});
  a.loads[1].available = {{"CPU", 1e13}, {"unheard of", 5}};
  a.loads[1].held = {{"CPU", 1e13}};
  a.loads[1].queued = {{"CPU", 1e13}};
  a.loads[1].running = a.loads[1].waiting = UINT64_MAX;
  a.rest(100 * kMs);
  EXPECT_EQ(a.ask(0, {{"CPU", 2}}).node, kNoNode);
  EXPECT_EQ(a.ask(0, {{"x", 1}}).node, kNoNode);
  a.side.load(77, a.loads[1], a.now);
  EXPECT_FALSE(a.side.place(0, "nonsense", a.now).ok());
  EXPECT_FALSE(a.side.place(5, cluster::encode(Questions{}), a.now).ok());
}

// ---- over sessions

class TempDir {
 public:
  TempDir() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base && *base ? base : "/tmp") + "/libray-place-XXXXXX";
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A daemon's main thread is this test's; its processes are a load that the test sets.
struct Side {
  TempDir dir;
  std::shared_ptr<Mailbox> box = std::make_shared<Mailbox>();
  std::shared_ptr<ClusterSide> side;
  cluster::Load load;
  std::string ended;
  ~Side() {
    box->close();
    side.reset();
  }
};

class Sides : public ::testing::Test {
 protected:
  Side* start(const Resources& total) {
    all_.push_back(std::make_unique<Side>());
    Side* s = all_.back().get();
    EXPECT_TRUE(session::write_file(s->dir.path() + "/" + kClusterTokenFile, "0123456789abcdef0123456789abcdef\n").ok());
    ClusterOptions o;
    o.role = all_.size() == 1 ? "head" : "node";
    if (all_.size() == 1) o.listen = "tcp://127.0.0.1:0";
    else o.head = "tcp://" + all_[0]->side->self().head;
    cluster::About about;
    about.id = random_id();
    about.session = s->dir.path();
    about.resources = total;
    s->load.available = total;
    ClusterSide::Hooks hooks;
    hooks.query = [](const std::string&) { return std::string(); };
    hooks.load = [s] { return s->load; };
    hooks.put_row = [](const std::string&) {};
    hooks.end = [s](const Status& why) { s->ended = why.message(); };
    auto side = ClusterSide::start(o, s->dir.path(), std::move(about), s->box, std::move(hooks));
    EXPECT_TRUE(side.ok()) << side.status().message();
    if (side.ok()) s->side = *side;
    return s;
  }
  void relay(Side* s) { s->side->set_relay("tcp://127.0.0.1:" + std::to_string(1000 + s->side->self().index)); }
  // The limit only ends a test that has failed.
  bool until(const std::function<bool()>& what) {
    const int64_t end = steady_ns() + 60'000 * kMs;
    while (!what()) {
      if (steady_ns() > end) return false;
      std::vector<pollfd> fds;
      for (const auto& s : all_) fds.push_back({s->box->fd(), POLLIN, 0});
      ::poll(fds.data(), fds.size(), 20);
      for (const auto& s : all_) s->box->run();
    }
    return true;
  }
  bool all_see(size_t n) {
    return until([&] {
      return std::all_of(all_.begin(), all_.end(), [&](const auto& s) {
        return !s->side || (s->side->rows().size() == n &&
                            std::all_of(s->side->rows().begin(), s->side->rows().end(),
                                        [](const auto& r) { return !r.second.about.relay.empty(); }));
      });
    });
  }
  std::vector<Placed> ask(Side* s, const Resources& needs, size_t n = 1, uint32_t number = 7) {
    std::vector<Placed> out;
    for (size_t i = 0; i < n; ++i) s->side->place(task(number), 0, needs, false, [&out](const Placed& p) { out.push_back(p); });
    EXPECT_TRUE(until([&] { return out.size() == n; }));
    return out;
  }
  std::vector<std::unique_ptr<Side>> all_;
};

TEST_F(Sides, NameTheNodeThatHasItToEveryone) {
  Side *h = start({{"CPU", 1}}), *a = start({{"CPU", 1}}), *b = start({{"CPU", 1}, {"x", 2}});
  for (Side* s : {h, a, b}) relay(s);
  ASSERT_TRUE(all_see(3));
  for (Side* s : {h, a, b}) {
    const Placed p = ask(s, {{"x", 1}})[0];
    EXPECT_EQ(p.node, 2u) << p.text;
    EXPECT_EQ(p.epoch, b->side->self().epoch);
    EXPECT_EQ(s->side->may_fit_elsewhere({{"x", 1}}), s != b);
    EXPECT_TRUE(s->side->may_fit_elsewhere({{"CPU", 1}}));
    EXPECT_FALSE(s->side->may_fit_elsewhere({{"CPU", 1}, {"y", 1}}));
    const Placed none = ask(s, {{"y", 1}})[0];
    EXPECT_EQ(none.node, kNoNode);
    EXPECT_TRUE(none.infeasible);
    EXPECT_GT(none.again_ns, 0);
    EXPECT_NE(none.text.find("'y'"), std::string::npos) << none.text;
  }
}

TEST_F(Sides, AHundredAtOnceSpreadOverTwoIdleNodes) {
  Side *h = start({{"CPU", 1}}), *a = start({{"CPU", 64}}), *b = start({{"CPU", 64}});
  for (Side* s : {h, a, b}) relay(s);
  ASSERT_TRUE(all_see(3));
  h->load.available["CPU"] = 0;
  std::map<NodeIndex, int> n;
  for (const Placed& p : ask(h, {{"CPU", 1}}, 100)) ++n[p.node];  // one example for all of them
  EXPECT_EQ(n[1] + n[2], 100);
  EXPECT_LE(std::max(n[1], n[2]), 65);
}

TEST_F(Sides, ABusyNodesTaskLeavesAndAnIdleOnesStays) {
  Side *h = start({{"CPU", 1}}), *a = start({{"CPU", 1}});
  for (Side* s : {h, a}) relay(s);
  ASSERT_TRUE(all_see(2));
  EXPECT_EQ(ask(a, {{"CPU", 1}})[0].node, 1u);
  a->load.available["CPU"] = 0;
  EXPECT_EQ(ask(a, {{"CPU", 1}})[0].node, 0u);
}

TEST_F(Sides, ANodeIsNamedOnceItHasARelay) {
  Side *h = start({{"CPU", 1}}), *a = start({{"CPU", 1}, {"x", 1}});
  relay(h);
  ASSERT_TRUE(until([&] { return h->side->rows().size() == 2; }));
  for (int i = 0; i < 3; ++i) {
    const Placed p = ask(h, {{"x", 1}})[0];
    EXPECT_EQ(p.node, kNoNode);
    EXPECT_FALSE(p.infeasible);
  }
  relay(a);
  EXPECT_TRUE(until([&] {  // by the head's scheduler at once, by this node when it knows where to send it
    const Placed p = ask(h, {{"x", 1}})[0];
    EXPECT_TRUE(p.node == kNoNode || !h->side->rows().at(p.node).about.relay.empty());
    return p.node == 1;
  }));
  a->side->set_relay("");
  EXPECT_TRUE(until([&] { return h->side->rows().at(1).about.relay.empty(); }));
  EXPECT_EQ(ask(h, {{"x", 1}})[0].node, kNoNode);
}

TEST_F(Sides, ADeadNodeIsNeverNamedAgain) {
  Side *h = start({{"CPU", 1}}), *a = start({{"CPU", 1}}), *b = start({{"CPU", 1}, {"x", 8}});
  for (Side* s : {h, a, b}) relay(s);
  ASSERT_TRUE(all_see(3));
  EXPECT_EQ(ask(a, {{"x", 1}})[0].node, 2u);
  b->side.reset();  // without a word
  ASSERT_TRUE(until([&] {
    const Placed p = ask(a, {{"x", 1}})[0];
    EXPECT_TRUE(p.node == kNoNode || (p.node == 2 && a->side->rows().at(2).state != State::kDead));
    return a->side->rows().at(2).state == State::kDead;
  }));
  for (Side* s : {h, a}) {
    ASSERT_TRUE(until([&] { return s->side->rows().at(2).state == State::kDead; }));
    EXPECT_FALSE(s->side->may_fit_elsewhere({{"x", 1}}));
    for (uint32_t i = 0; i < 5; ++i) {
      const Placed p = ask(s, {{"x", 1}}, 1, 7 + i)[0];
      EXPECT_EQ(p.node, kNoNode);
      EXPECT_TRUE(p.infeasible) << p.text;
    }
  }
}

TEST_F(Sides, WithoutAHeadEverythingStays) {
  Side *h = start({{"CPU", 1}}), *a = start({{"CPU", 1}});
  for (Side* s : {h, a}) relay(s);
  ASSERT_TRUE(all_see(2));
  h->side.reset();
  const std::vector<Placed> asked = ask(a, {{"CPU", 1}}, 3);  // it does not answer
  for (const Placed& p : asked) {
    EXPECT_EQ(p.node, kNoNode);
    EXPECT_FALSE(p.infeasible);
    EXPECT_EQ(p.again_ns, 100 * kMs);
    EXPECT_NE(p.text, "");
  }
  ASSERT_TRUE(until([&] { return !a->ended.empty(); }));
  const Placed late = ask(a, {{"CPU", 1}})[0];
  EXPECT_EQ(late.node, kNoNode);
  EXPECT_EQ(late.text, a->ended);
}

TEST_F(Sides, SayWhyOnEveryNode) {
  Side *h = start({{"CPU", 1}}), *a = start({{"CPU", 1}, {"x", 1}});
  for (Side* s : {h, a}) relay(s);
  ASSERT_TRUE(all_see(2));
  ASSERT_EQ(ask(h, {{"x", 1}})[0].node, 1u);
  for (Side* s : {h, a}) {
    std::vector<std::pair<Status, std::string>> said;
    auto why = [&](const std::string& id) {
      wire::Packer filter;
      filter.map(1).str("task").str(id);
      EXPECT_TRUE(s->side->query("why", filter.bytes(), [&](const Status& how, const std::string& value) {
        said.emplace_back(how, wire::Cursor(value).text());
      }));
    };
    why(task(7).hex());
    why(task(8).hex());
    why("nonsense");
    ASSERT_TRUE(until([&] { return said.size() == 3; }));
    EXPECT_EQ(said[0].first.code(), RAY_INVALID_ARGUMENT);  // at once
    EXPECT_TRUE(said[1].first.ok()) << said[1].first.message();
    EXPECT_EQ(said[1].second.rfind(task(7).hex(), 0), 0u) << said[1].second;
    EXPECT_NE(said[1].second.find("placed on node 1"), std::string::npos) << said[1].second;
    EXPECT_EQ(said[2].second, "");
  }
}

}  // namespace
}  // namespace ray::node
