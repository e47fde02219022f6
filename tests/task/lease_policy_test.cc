// Which lease a task goes to, how many are wanted, when one goes back (libray/task/lease_policy.h).
#include <gtest/gtest.h>

#include "tests/task/kit.h"

namespace ray::task {
namespace {

using Said = std::vector<std::string>;
constexpr int64_t kUs = 1'000, kMs = 1'000'000;

TEST(LeasePolicy, UnknownTasksGoOneToAWorker) {
  Client c;
  PlainShape s;
  for (int i = 0; i < 3; ++i) c.submit(&s);
  EXPECT_EQ(c.take(), (Said{"want 1", "want 2", "want 4"}));
  PlainLink* first = c.grant(&s, 1)->link;
  PlainLink* second = c.grant(&s, 2)->link;
  EXPECT_EQ(first->inflight.size, 1u);
  EXPECT_EQ(second->inflight.size, 1u);
  EXPECT_EQ(s.backlog.size, 1u);
  EXPECT_EQ(c.policy.check(), "");
}

TEST(LeasePolicy, ShortTasksFillOneWindowBeforeTheNext) {
  Client c;
  PlainShape s;
  PlainLink* first = c.grant(&s, 1)->link;
  PlainLink* second = c.grant(&s, 2)->link;
  for (int i = 0; i < 7; ++i) c.submit(&s, 100 * kUs);
  EXPECT_EQ(first->inflight.size, 5u);
  EXPECT_EQ(second->inflight.size, 2u);
  EXPECT_EQ(c.policy.check(), "");
}

TEST(LeasePolicy, ALeaseThatTakesNothingDoesNotCountForWhatWaits) {
  Client c;
  PlainShape s;
  Policy::Lease* l = c.grant(&s, 1);
  c.submit(&s, 10 * kUs);
  c.take();
  c.policy.reclaimed(l, &c.todo);
  c.carry_out();
  c.submit(&s, 10 * kUs);  // a child, perhaps, of the one that runs
  EXPECT_EQ(c.take(), (Said{"want 2"}));
  EXPECT_EQ(s.backlog.size, 1u);
}

TEST(LeasePolicy, AReclaimedLeaseGoesWhenItsTaskIsDone) {
  Client c;
  PlainShape s;
  Policy::Lease* l = c.grant(&s, 7);
  Plain* runs = c.submit(&s, 10 * kUs);
  c.submit(&s, 10 * kUs);
  c.take();
  c.policy.reclaimed(l, &c.todo);
  c.carry_out();
  EXPECT_EQ(c.take(), (Said{"ask back 0"}));
  Plain* waits = l->link->inflight.tail;
  c.unlink(waits);
  enter<PlainKit>(waits, State::kQueued);
  s.backlog.give_back(waits);
  c.pump(&s);
  EXPECT_EQ(c.take(), (Said{"want 2"}));
  c.done(&s, runs, kMs);
  EXPECT_EQ(c.take(), (Said{"want 1", "return 7"}));
  EXPECT_EQ(c.policy.held(), 0u);
  EXPECT_EQ(c.policy.check(), "");
}

TEST(LeasePolicy, NothingIsWantedOrKeptWhenNothingWaits) {
  Client c;
  PlainShape s;
  Plain* t = c.submit(&s);
  c.submit(&s);
  c.grant(&s, 1);
  c.grant(&s, 2);
  c.take();
  c.done(&s, t, kMs);
  c.done(&s, &c.tasks[1], kMs);
  c.tick(2 * kMs);
  EXPECT_EQ(c.take(), Said{});
  c.tick(kMs + Policy::kSpareNs + 1);
  EXPECT_EQ(c.take(), (Said{"want 0"}));
  c.tick(kMs + Policy::kIdleNs + 1);
  EXPECT_EQ(c.take(), (Said{"return 1", "return 2"}));
  EXPECT_TRUE(c.policy.active().empty());
}

TEST(LeasePolicy, WhatRestsGoesToWhoeverWaits) {
  Client c;
  PlainShape s, other;
  c.grant(&s, 1);
  Plain* t = c.submit(&s);
  c.submit(&other);
  c.take();
  c.done(&s, t, kMs);
  EXPECT_EQ(c.take(), (Said{"want 0", "return 1"}));
}

TEST(LeasePolicy, WhoStallsGivesBackAndTakesNothing) {
  Client c;
  PlainShape s;
  PlainLink* link = c.grant(&s, 1)->link;
  c.submit(&s, 10 * kUs);
  c.submit(&s, 10 * kUs);
  c.take();
  link->last_result_ns = kMs;
  c.tick(kMs + Policy::kStallNs + 1);
  EXPECT_EQ(link->lease->shut, kSlow);
  EXPECT_EQ(c.take(), (Said{"ask back 0", "want 2"}));
  EXPECT_LT(c.tasks[0].run, 0);
  c.submit(&s, 10 * kUs);
  EXPECT_EQ(s.backlog.size, 1u);
}

TEST(LeasePolicy, WhoRestsTakesOverWhatWaitsBehindALongTask) {
  Client c;
  PlainShape s;
  c.grant(&s, 1);
  for (int i = 0; i < 4; ++i) c.submit(&s, 120 * kUs);
  c.grant(&s, 2);
  Plain* t = c.submit(&s, 120 * kUs);
  c.take();
  c.done(&s, t, kMs);
  EXPECT_EQ(c.take(), (Said{"ask back 0"}));
}

TEST(LeasePolicy, AGrantForAShapeThatIsGoneIsNone) {
  Client c;
  PlainShape s;
  c.submit(&s);
  c.grant(&s, 1);
  c.take();
  c.policy.unplaceable(&s, &c.todo);
  c.carry_out();
  EXPECT_EQ(c.take(), (Said{"want 0"}));
  EXPECT_EQ(c.grant(&s, 2), nullptr);
  c.done(&s, &c.tasks[0], kMs);
  EXPECT_EQ(c.take(), (Said{"return 1"}));
}

TEST(LeasePolicy, ADeadWorkerIsNotReplacedForNothing) {
  Client c;
  PlainShape s;
  Plain* t = c.submit(&s);
  Policy::Lease* l = c.grant(&s, 1);
  c.take();
  l->link->inflight.remove(t);
  t->lease = nullptr;
  c.policy.lost(l, &c.todo);
  c.carry_out();
  EXPECT_EQ(c.take(), (Said{"want 0"}));
  enter<PlainKit>(t, State::kQueued);
  s.backlog.push_back(t);
  c.pump(&s);
  EXPECT_EQ(c.take(), (Said{"want 1"}));
}

TEST(LeasePolicy, CheckSeesWhatIsWrong) {
  Client c;
  PlainShape s;
  Policy::Lease* l = c.grant(&s, 1);
  c.submit(&s, 10 * kUs);
  EXPECT_EQ(c.policy.check(), "");
  ++l->est_ns;
  EXPECT_NE(c.policy.check(), "");
  --l->est_ns;
  s.pending = 0;
  EXPECT_NE(c.policy.check(), "");
}

}  // namespace
}  // namespace ray::task
