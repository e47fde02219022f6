// The object directory: rules one by one, then a random run against a model that knows who really
// holds what.
#include "libray/object/directory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

namespace ray::object {
namespace {

const TaskId kTask = child_task(origin_of(TaskId{}), 1);
ObjectId object(uint32_t i) { return return_object(kTask, i); }
const Location kWhere{1, 1, 64, 1000};

struct Fixture : ::testing::Test {
  Directory d;
  Actions out;
  void pass() {
    d.begin_pass();
    d.end_pass(&out);
  }
  void settle() {
    while (d.wants_pass()) pass();
    EXPECT_EQ(d.check(), "");
  }
  size_t count(Action::Kind kind, const ObjectId& id) {
    return static_cast<size_t>(std::count_if(
        out.begin(), out.end(), [&](const Action& a) { return a.kind == kind && a.id == id; }));
  }
  void share(uint32_t owner, const ObjectId& id) {
    d.share(owner, id, wire::kObjPending, 0, {}, nullptr, 0, &out);
  }
  void ready(const ObjectId& id, std::vector<ObjectId> inner = {}) {
    d.ready(id, wire::kObjReady, 0, kWhere, inner.data(), inner.size(), &out);
  }
};
using DirectoryTest = Fixture;

TEST_F(DirectoryTest, FreesAfterTheLastReleaseAndAWholePass) {
  share(1, object(0));
  ready(object(0));
  d.hold(object(0), 2, 1);
  settle();
  d.release(object(0), 1, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.release(object(0), 2, 1);
  EXPECT_TRUE(d.wants_pass());
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 1u);
  EXPECT_EQ(out.back().location.size, 1000u);
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, APassThatHadBegunBeforeDoesNotFree) {
  share(1, object(0));
  ready(object(0));
  settle();
  d.begin_pass();
  d.release(object(0), 1, 1);  // read in the middle of the pass
  d.end_pass(&out);
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.hold(object(0), 2, 1);  // a ring that the old pass had already read
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.release(object(0), 2, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 1u);
}

// Process 3 gives the object to 2, whose ring was read already in this pass, and lets go of it: 3's hold and
// release are both read in the pass, 2's hold is not.
TEST_F(DirectoryTest, AUseWithinThePassPutsOffItsEnd) {
  share(1, object(0));
  ready(object(0));
  d.release(object(0), 1, 1);
  d.begin_pass();
  d.hold(object(0), 3, 1);
  d.release(object(0), 3, 1);
  d.end_pass(&out);
  EXPECT_EQ(d.check(), "");
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.hold(object(0), 2, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.release(object(0), 2, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 1u);
}

TEST_F(DirectoryTest, APlaceholdersEndIsPutOffToo) {
  d.hold(object(0), 3, 1);
  d.begin_pass();
  share(1, object(0));
  ready(object(0));
  d.release(object(0), 1, 1);
  d.release(object(0), 3, 1);
  d.end_pass(&out);
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 1u);
}

TEST_F(DirectoryTest, AContainerThatEndsAtThePassesEndPutsOffWhatItContained) {
  ObjectId inner = object(1);
  share(1, inner);
  ready(inner);
  d.release(inner, 1, 1);
  d.begin_pass();
  d.result(object(0), 5, true, 0, &inner, 1);
  d.discard(object(0), 5, 0);
  d.begin_pass();  // the one before was not ended
  d.end_pass(&out);
  EXPECT_EQ(count(Action::kFree, inner), 0u);
  settle();
  EXPECT_EQ(count(Action::kFree, inner), 1u);
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, CancelGoesToTheOwner) {
  share(1, object(0));
  d.hold(object(0), 2, 1);
  d.cancel(object(0), 3, &out);
  ASSERT_EQ(count(Action::kCancel, object(0)), 1u);
  EXPECT_EQ(out.back().process, 1u);
  EXPECT_EQ(out.back().flags, 3u);
  ready(object(0));
  d.cancel(object(0), 0, &out);  // it is finished
  EXPECT_EQ(count(Action::kCancel, object(0)), 1u);
  settle();
}

TEST_F(DirectoryTest, CancelWaitsForAnOwnerThatIsNotKnownYet) {
  d.hold(object(0), 2, 1);
  d.cancel(object(0), 1, &out);
  EXPECT_EQ(count(Action::kCancel, object(0)), 0u);
  share(1, object(0));
  EXPECT_EQ(count(Action::kCancel, object(0)), 1u);
  d.process_died(1, &out);
  d.cancel(object(0), 1, &out);  // nobody makes it any more
  EXPECT_EQ(count(Action::kCancel, object(0)), 1u);
  d.cancel(object(1), 1, &out);  // of an object that never was: no trace stays
  d.release(object(0), 2, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, AnAbandonedPassFreesNothing) {
  share(1, object(0));
  ready(object(0));
  d.release(object(0), 1, 1);
  d.begin_pass();  // incomplete: end_pass is not called
  EXPECT_TRUE(d.wants_pass());
  d.hold(object(0), 2, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  EXPECT_TRUE(d.contains(object(0)));
}

TEST_F(DirectoryTest, HoldAndReleaseMayComeBeforeTheShare) {
  d.release(object(0), 2, 1);
  d.hold(object(0), 2, 1);
  d.hold(object(0), 3, 1);
  share(1, object(0));
  ready(object(0));
  d.release(object(0), 1, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.release(object(0), 3, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 1u);
}

TEST_F(DirectoryTest, OneProcessBelowZeroKeepsTheObject) {
  // 2 released what it was given by a hold that is still unread: the sum is zero, the truth is not.
  share(1, object(0));
  ready(object(0));
  d.hold(object(0), 3, 1);
  d.release(object(0), 2, 1);
  d.release(object(0), 1, 1);
  settle();
  EXPECT_EQ(d.holders(object(0)), 0);
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.hold(object(0), 2, 1);
  d.release(object(0), 3, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 1u);
}

TEST_F(DirectoryTest, ContainersHoldWhatTheyContain) {
  for (uint32_t i : {0, 1, 2}) share(1, object(i));
  ready(object(2));
  ready(object(1), {object(2)});
  ready(object(0), {object(1), object(2)});
  for (uint32_t i : {1, 2}) d.release(object(i), 1, 1);
  settle();
  EXPECT_EQ(d.size(), 3u);
  d.release(object(0), 1, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
  for (uint32_t i : {0, 1, 2}) EXPECT_EQ(count(Action::kFree, object(i)), 1u);
}

TEST_F(DirectoryTest, LongListsComeInParts) {
  for (uint32_t i : {0, 1, 2}) share(1, object(i));
  ready(object(1));
  ready(object(2));
  ObjectId first = object(1), second = object(2);
  d.ready(object(0), wire::kObjPending, 0, {}, &first, 1, &out);
  d.ready(object(0), wire::kObjReady, 0, kWhere, &second, 1, &out);
  for (uint32_t i : {1, 2}) d.release(object(i), 1, 1);
  settle();
  EXPECT_EQ(d.size(), 3u);
  d.release(object(0), 1, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, ResolveTellsOnce) {
  share(1, object(0));
  d.resolve(object(0), 2, &out);
  d.resolve(object(0), 2, &out);
  EXPECT_EQ(count(Action::kTell, object(0)), 0u);
  ready(object(0));
  EXPECT_EQ(count(Action::kTell, object(0)), 1u);
  EXPECT_EQ(out.back().process, 2u);
  d.resolve(object(0), 3, &out);
  EXPECT_EQ(count(Action::kTell, object(0)), 2u);
}

TEST_F(DirectoryTest, ErrorsKeepTheirCode) {
  share(1, object(0));
  d.resolve(object(0), 2, &out);
  d.ready(object(0), wire::kObjError, RAY_TASK_FAILED, kWhere, nullptr, 0, &out);
  ASSERT_EQ(count(Action::kTell, object(0)), 1u);
  EXPECT_EQ(out.back().state, static_cast<uint32_t>(wire::kObjError));
  EXPECT_EQ(out.back().code, RAY_TASK_FAILED);
}

TEST_F(DirectoryTest, AnOwnersDeathLosesWhatWasPending) {
  share(1, object(0));
  share(1, object(1));
  ready(object(1));
  for (uint32_t i : {0, 1}) {
    d.hold(object(i), 2, 1);
    d.resolve(object(i), 2, &out);
  }
  out.clear();
  d.process_died(1, &out);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].id, object(0));
  EXPECT_EQ(out[0].state, static_cast<uint32_t>(wire::kObjLost));
  EXPECT_EQ(out[0].code, RAY_OBJECT_LOST);
  d.resolve(object(0), 3, &out);  // who asks later is told the same
  EXPECT_EQ(out.back().state, static_cast<uint32_t>(wire::kObjLost));
  settle();
  EXPECT_EQ(d.size(), 2u);
  d.process_died(2, &out);
  settle();
  EXPECT_EQ(d.size(), 0u);
  EXPECT_EQ(count(Action::kFree, object(1)), 1u);
}

// A parent that runs again makes the same ids, maybe with other values.
TEST_F(DirectoryTest, TheLastOwnersValueCounts) {
  const Location other{2, 9, 128, 2000};
  share(1, object(0));
  ready(object(0), {object(1)});
  EXPECT_EQ(count(Action::kKeep, object(0)), 1u);
  d.hold(object(0), 2, 1);  // reads the first value, by its place
  d.process_died(1, &out);
  share(3, object(0));
  d.resolve(object(0), 4, &out);
  EXPECT_EQ(count(Action::kTell, object(0)), 0u);  // of the new owner's value
  d.ready(object(0), wire::kObjReady, 0, kWhere, nullptr, 0, &out, 1);  // a late word of the first owner
  EXPECT_EQ(count(Action::kTell, object(0)), 0u);
  d.ready(object(0), wire::kObjReady, 0, other, nullptr, 0, &out, 3);
  ASSERT_EQ(count(Action::kTell, object(0)), 1u);
  EXPECT_EQ(out.back().location.size, 2000u);
  d.release(object(0), 3, 1);
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 0u);
  d.release(object(0), 2, 1);
  settle();
  EXPECT_GE(count(Action::kFree, object(0)), 2u);  // every copy
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, AnEarlierValueComesBackWhenItsMakerIsGone) {
  share(1, object(0));
  ready(object(0));
  d.hold(object(0), 2, 1);
  share(3, object(0));
  d.resolve(object(0), 2, &out);
  EXPECT_EQ(count(Action::kTell, object(0)), 0u);
  d.process_died(3, &out);
  ASSERT_EQ(count(Action::kTell, object(0)), 1u);
  EXPECT_EQ(out.back().state, static_cast<uint32_t>(wire::kObjReady));
}

TEST_F(DirectoryTest, TwoEntriesOfOneProcessCountTwice) {
  share(1, object(0));
  share(1, object(0));  // a task that ran twice in one worker
  ready(object(0));
  d.release(object(0), 1, 1);
  settle();
  EXPECT_TRUE(d.contains(object(0)));
  d.release(object(0), 1, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
}

// ---- results

TEST_F(DirectoryTest, AResultContainsForAsLongAsItIsHeld) {
  for (uint32_t i : {1, 2}) share(1, object(i)), ready(object(i));
  ObjectId inner[] = {object(1), object(2)};
  d.result(object(0), 5, true, 0, inner, 1);
  d.result(object(0), 5, true, 0, inner + 1, 1);  // long lists come in parts
  for (uint32_t i : {1, 2}) d.release(object(i), 1, 1);
  settle();
  EXPECT_EQ(d.size(), 3u);
  share(5, object(0));  // it is passed on: it goes with the last who has it
  ready(object(0));
  d.hold(object(0), 6, 1);
  d.release(object(0), 5, 2);
  settle();
  EXPECT_EQ(d.size(), 3u);
  d.release(object(0), 6, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
  for (uint32_t i : {0, 1, 2}) EXPECT_EQ(count(Action::kFree, object(i)), 1u);
}

TEST_F(DirectoryTest, AnAttemptThatIsNotWantedIsDiscarded) {
  for (uint32_t i : {1, 2}) share(1, object(i)), ready(object(i));
  ObjectId first = object(1), second = object(2);
  d.discard(object(0), 5, 0);  // read before what it discards
  d.result(object(0), 5, true, 0, &first, 1);
  d.result(object(0), 5, true, 1, &second, 1);
  for (uint32_t i : {1, 2}) d.release(object(i), 1, 1);
  settle();
  EXPECT_FALSE(d.contains(object(1)));
  EXPECT_TRUE(d.contains(object(2)));
  EXPECT_EQ(d.holders(object(0)), 1);
  d.discard(object(0), 5, 7);  // there was none
  d.discard(object(3), 5, 0);
  settle();
  EXPECT_EQ(d.holders(object(0)), 1);
  d.release(object(0), 5, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, AResultForTheDeadIsDropped) {
  share(1, object(1));
  ready(object(1));
  ObjectId inner = object(1);
  d.result(object(0), 5, true, 0, &inner, 1);
  d.hold(object(0), 6, 1);
  d.release(object(1), 1, 1);
  d.process_died(5, &out);
  d.discard(object(0), 5, 0);  // by its worker: not a hold of the dead less
  settle();
  EXPECT_FALSE(d.contains(object(1)));
  EXPECT_EQ(d.holders(object(0)), 1);
  d.release(object(0), 6, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, WatchesForCountsBelowZero) {
  d.watch_counts();
  share(1, object(0));
  d.begin_pass();
  d.release(object(0), 2, 1);
  d.end_pass(&out);
  EXPECT_EQ(d.check(), "");  // the hold may lie in a ring that was read before
  pass();
  EXPECT_NE(d.check(), "");
}

TEST_F(DirectoryTest, ARetryMakesALostObjectAgain) {
  share(1, object(0));
  d.hold(object(0), 2, 1);
  d.process_died(1, &out);
  share(3, object(0));
  d.resolve(object(0), 2, &out);
  EXPECT_EQ(count(Action::kTell, object(0)), 0u);
  ready(object(0));
  ASSERT_EQ(count(Action::kTell, object(0)), 1u);
  EXPECT_EQ(out.back().state, static_cast<uint32_t>(wire::kObjReady));
  d.release(object(0), 2, 1);
  d.release(object(0), 3, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, WhoAsksForWhatNobodyOwnsIsToldThatItIsLost) {
  d.hold(object(0), 2, 1);
  d.resolve(object(0), 2, &out);
  EXPECT_TRUE(out.empty());
  settle();
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].state, static_cast<uint32_t>(wire::kObjLost));
  d.release(object(0), 2, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, AValueThatComesAfterEverybodyLeftIsFreed) {
  share(1, object(0));
  d.release(object(0), 1, 1);
  settle();
  EXPECT_EQ(d.size(), 0u);
  ready(object(0));
  settle();
  EXPECT_EQ(count(Action::kFree, object(0)), 1u);
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, ActorsAreReportedWhenUnreferenced) {
  ActorId actor = actor_of(kTask);
  share(1, actor);
  share(1, actor);  // a second share by the same owner adds nothing
  d.hold(actor, 2, 1);
  d.release(actor, 1, 1);
  settle();
  EXPECT_EQ(count(Action::kActorUnreferenced, actor), 0u);
  d.process_died(2, &out);
  settle();
  EXPECT_EQ(count(Action::kActorUnreferenced, actor), 1u);
  EXPECT_EQ(count(Action::kFree, actor), 0u);
  EXPECT_EQ(d.size(), 0u);
}

TEST_F(DirectoryTest, AnOwnersDeathDoesNotLoseAnActor) {
  ActorId actor = actor_of(kTask);
  share(1, actor);
  d.hold(actor, 2, 1);
  d.process_died(1, &out);
  settle();
  EXPECT_TRUE(out.empty());
  EXPECT_TRUE(d.contains(actor));
}

TEST_F(DirectoryTest, TheDaemonHoldsDependenciesOfActors) {
  share(1, object(0));
  ready(object(0));
  d.hold(object(0), kDaemonHolder, 1);
  d.process_died(1, &out);
  settle();
  EXPECT_TRUE(d.contains(object(0)));
  d.release(object(0), kDaemonHolder, 1);
  settle();
  EXPECT_FALSE(d.contains(object(0)));
}

// ---- random runs
// -----------------------------------------------------------------------------------

// Processes with up rings and links between them, as wire/protocol.h describes; the daemon reads
// rings in any order and any portions. The world knows who really holds what.
class World {
 public:
  World(uint32_t seed, bool deaths) : random_(seed), deaths_(deaths) {
    d_.watch_counts();
    for (uint32_t p = 0; p < kProcesses; ++p) alive_.insert(p);
  }

  void run(int steps) {
    for (int i = 0; i < steps && !failed_; ++i) step();
    ending_ = true;  // everyone drops everything
    for (uint32_t p : std::set<uint32_t>(alive_)) {
      while (!links_[p].empty()) receive(p);
      for (auto [id, n] : std::map<ObjectId, int64_t>(held_[p])) {
        while (n-- > 0) drop(p, id);
      }
    }
    for (int i = 0; i < 200 && (i == 0 || d_.wants_pass()); ++i) whole_pass();
    EXPECT_EQ(d_.check(), "");
    EXPECT_EQ(d_.size(), 0u) << "something was never freed";
    for (const auto& [id, inner] : value_) EXPECT_TRUE(freed_.count(id)) << "value was never freed";
  }

 private:
  static constexpr uint32_t kProcesses = 5;
  struct Up {
    enum { kShare, kReady, kHold, kRelease, kResult, kDiscard } type;
    ObjectId id;
    uint32_t process;
    std::vector<ObjectId> inner;
    uint32_t attempt = 0;
  };

  uint32_t pick(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }
  uint32_t some_process() {
    auto it = alive_.begin();
    std::advance(it, pick(static_cast<uint32_t>(alive_.size())));
    return *it;
  }
  bool some_held(uint32_t p, ObjectId* out) {
    if (held_[p].empty()) return false;
    auto it = held_[p].begin();
    std::advance(it, pick(static_cast<uint32_t>(held_[p].size())));
    *out = it->first;
    return true;
  }

  void create(uint32_t p) {
    ObjectId id = return_object(child_task(origin_of(TaskId{}), ++next_), 0);
    rings_[p].push_back({Up::kShare, id, p, {}});
    held_[p][id] = 1;
    owner_[id] = p;
  }
  void finish(uint32_t p) {
    ObjectId id, inner;
    if (!some_held(p, &id) || owner_[id] != p || value_.count(id)) return;
    std::vector<ObjectId> contained;
    for (uint32_t i = pick(3); i > 0; --i)
      // Acyclic: only older ones.
      if (some_held(p, &inner) && inner < id) contained.push_back(inner);
    rings_[p].push_back({Up::kReady, id, p, contained});
    value_[id] = contained;
  }
  void send(uint32_t p) {
    ObjectId id;
    if (!some_held(p, &id)) return;
    uint32_t to = some_process();
    rings_[p].push_back({Up::kHold, id, to, {}});  // before it is published on the link
    links_[to].push_back(id);
  }
  void receive(uint32_t p) {
    if (links_[p].empty()) return;
    ++held_[p][links_[p].front()];
    links_[p].pop_front();
  }
  // p runs a task of `to`, once or twice, and hands over what the last attempt made of it.
  void hand_over(uint32_t p) {
    uint32_t to = some_process();
    ObjectId id = return_object(child_task(origin_of(TaskId{}), ++next_), 0), inner;
    std::vector<ObjectId> contained;
    for (uint32_t attempt = 0, last = pick(2); attempt <= last; ++attempt) {
      contained.clear();
      for (uint32_t i = 1 + pick(2); i > 0; --i)
        if (some_held(p, &inner)) contained.push_back(inner);
      if (contained.empty()) return;
      rings_[p].push_back({Up::kResult, id, to, contained, attempt});
      // By its worker, or by its owner, who is read in any order with it.
      if (attempt < last) rings_[pick(2) ? p : to].push_back({Up::kDiscard, id, to, {}, attempt});
    }
    links_[to].push_back(id);
    owner_[id] = kProcesses;  // nobody here makes a value of it
    results_[id] = contained;
  }
  void borrow(uint32_t p) {
    ObjectId id;
    if (!some_held(p, &id)) return;
    const auto& values = results_.count(id) ? results_ : value_;
    if (!values.count(id) || values.at(id).empty()) return;
    const std::vector<ObjectId>& inside = values.at(id);
    ObjectId inner = inside[pick(static_cast<uint32_t>(inside.size()))];
    rings_[p].push_back({Up::kHold, inner, p, {}});
    ++held_[p][inner];
  }
  // `to` runs a task of p with a reference and keeps it: the hold is in the ring of `to`, before p may let go.
  void lend(uint32_t p) {
    ObjectId id;
    if (!some_held(p, &id)) return;
    uint32_t to = some_process();
    rings_[to].push_back({Up::kHold, id, to, {}});
    ++held_[to][id];
  }
  void drop(uint32_t p, const ObjectId& id) {
    rings_[p].push_back({Up::kRelease, id, p, {}});
    if (--held_[p][id] == 0) held_[p].erase(id);
  }
  void die(uint32_t p) {
    if (!deaths_ || alive_.size() < 3) return;
    while (!rings_[p].empty()) read_one(p);  // to the tail first
    alive_.erase(p);
    d_.process_died(p, &out_);
    held_[p].clear();
    links_[p].clear();
    check_actions();
    // Indexes of the dead are not used again here: a new process comes as another index.
  }

  void read_one(uint32_t p) {
    Up u = rings_[p].front();
    rings_[p].pop_front();
    switch (u.type) {
      case Up::kShare: d_.share(p, u.id, wire::kObjPending, 0, {}, nullptr, 0, &out_); break;
      case Up::kReady:
        d_.ready(u.id, wire::kObjReady, 0, kWhere, u.inner.data(), u.inner.size(), &out_);
        break;
      case Up::kHold:
        if (alive_.count(u.process)) d_.hold(u.id, u.process, 1);
        break;
      case Up::kRelease: d_.release(u.id, p, 1); break;
      case Up::kResult:
        d_.result(u.id, u.process, alive_.count(u.process) > 0, u.attempt, u.inner.data(), u.inner.size());
        break;
      case Up::kDiscard: d_.discard(u.id, u.process, u.attempt); break;
    }
    check_actions();
  }
  void whole_pass() {
    d_.begin_pass();
    std::vector<uint32_t> order(alive_.begin(), alive_.end());
    std::shuffle(order.begin(), order.end(), random_);
    for (uint32_t p : order) {
      while (!rings_[p].empty()) read_one(p);
      for (uint32_t n = ending_ ? 0 : pick(6); n > 0; --n) mutate();  // the world goes on while the daemon reads
    }
    d_.end_pass(&out_);
    check_actions();
    EXPECT_EQ(d_.check(), "");
  }
  bool really_held(const ObjectId& id) {
    std::vector<ObjectId> todo;
    std::set<ObjectId> alive;
    for (uint32_t p : alive_) {
      for (const auto& [x, n] : held_[p]) todo.push_back(x);
      for (const ObjectId& x : links_[p]) todo.push_back(x);
    }
    while (!todo.empty()) {
      ObjectId x = todo.back();
      todo.pop_back();
      if (x == id) return true;
      if (!alive.insert(x).second) continue;
      for (const auto* values : {&value_, &results_})
        if (auto v = values->find(x); v != values->end())
          todo.insert(todo.end(), v->second.begin(), v->second.end());
    }
    return false;
  }
  void check_actions() {
    for (const Action& a : out_) {
      if (a.kind != Action::kFree) continue;
      if (really_held(a.id)) failed_ = true;
      EXPECT_FALSE(really_held(a.id)) << "freed while held: " << a.id.hex();
      EXPECT_TRUE(freed_.insert(a.id).second) << "freed twice";
    }
    out_.clear();
  }

  void mutate() {
    uint32_t p = some_process();
    ObjectId id;
    switch (pick(10)) {
      case 9: return lend(p);
      case 8: return hand_over(p);
      case 0: return create(p);
      case 1: return finish(p);
      case 2:
      case 3: return send(p);
      case 4: return receive(p);
      case 5: return borrow(p);
      default:
        if (some_held(p, &id)) drop(p, id);
    }
  }
  void step() {
    uint32_t what = pick(100);
    if (what < 70) return mutate();
    if (what < 95) {
      uint32_t p = some_process();
      for (uint32_t n = pick(6); n > 0 && !rings_[p].empty(); --n) read_one(p);
      return;
    }
    if (what < 99) return whole_pass();
    if (pick(4) == 0) die(some_process());
  }

  std::mt19937 random_;
  bool deaths_;
  Directory d_;
  Actions out_;
  std::set<uint32_t> alive_;
  std::map<uint32_t, std::deque<Up>> rings_;
  std::map<uint32_t, std::deque<ObjectId>> links_;
  std::map<uint32_t, std::map<ObjectId, int64_t>> held_;
  std::map<ObjectId, uint32_t> owner_;
  std::map<ObjectId, std::vector<ObjectId>> value_, results_;
  std::set<ObjectId> freed_;
  uint32_t next_ = 0;
  bool failed_ = false, ending_ = false;
};

TEST(DirectoryProperty, NeverFreesWhatIsHeldAndFreesAllAtTheEnd) {
  for (uint32_t seed = 1; seed <= 400 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    World(seed, false).run(600);
  }
}

TEST(DirectoryProperty, TheSameWithDeaths) {
  for (uint32_t seed = 1; seed <= 400 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    World(seed, true).run(600);
  }
}

}  // namespace
}  // namespace ray::object
