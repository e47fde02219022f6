// Cancelled tasks in every state, and those that are cancelled by force (libray/task/cancellation.h).
#include <gtest/gtest.h>

#include <functional>

#include "tests/task/kit.h"

namespace ray::task {
namespace {

constexpr int64_t kUs = 1'000;

class CancellationTest : public ::testing::Test {
 protected:
  CancelStep cancel(Plain* t, bool force, bool begun) { return cancels.cancel(t, force, begun, 0); }
  // What is killed, and what is asked back, once the patience is over.
  std::string press(bool begun, int64_t at = Cancellation<PlainKit>::kPatienceNs) {
    return press_if([begun](const Plain*) { return begun; }, at);
  }
  std::string press_if(const std::function<bool(const Plain*)>& begun, int64_t at) {
    std::string killed;
    cancels.press_on(
        at,
        [this](uint64_t tag) {
          Plain* t = &c.tasks[tag - 1];
          return t->state == State::kFree ? nullptr : t;
        },
        begun, [&](const Plain* t) { killed += std::to_string(t->tag); }, &c.todo);
    c.carry_out();
    return killed;
  }
  Client c;
  PlainShape s;
  Cancellation<PlainKit> cancels;
};

TEST_F(CancellationTest, WhereItIsSaysWhatIsToBeDone) {
  Plain* waits = c.submit(&s);
  waits->retries_left = 3;
  EXPECT_EQ(cancel(waits, false, false), CancelStep::kEnd);
  EXPECT_EQ(waits->retries_left, 0);
  Plain stored;
  stored.shrinking = true;
  EXPECT_EQ(cancel(&stored, true, false), CancelStep::kLater);
  c.grant(&s, 1);
  Plain* runs = &c.tasks[0];
  ASSERT_EQ(runs->state, State::kPushed);
  EXPECT_EQ(cancel(runs, false, true), CancelStep::kTell);
  EXPECT_EQ(cancel(runs, false, false), CancelStep::kAskBack);
  Plain call;
  call.state = State::kPushed;
  EXPECT_EQ(cancel(&call, false, false), CancelStep::kTell);
  EXPECT_FALSE(cancels.presses());
}

TEST_F(CancellationTest, ByForceNothingElseIsInItsRing) {
  Policy::Lease* l = c.grant(&s, 1);
  Plain* runs = c.submit(&s, 10 * kUs);
  Plain* behind = c.submit(&s, 10 * kUs);
  EXPECT_EQ(cancel(runs, true, true), CancelStep::kAskBack);
  c.submit(&s, 10 * kUs);
  EXPECT_EQ(l->link->inflight.size, 2u);
  EXPECT_EQ(press(true), "");  // what is behind it could have begun
  EXPECT_TRUE(l->link->give_back_asked);
  c.unlink(behind);
  enter<PlainKit>(behind, State::kQueued);
  s.backlog.give_back(behind);
  EXPECT_EQ(press(false), "");  // not begun
  EXPECT_EQ(press(true), "1");
  EXPECT_FALSE(cancels.presses());
  c.done(&s, runs, 1);  // it had ended meanwhile; but its worker is being killed
  EXPECT_EQ(s.leases.size(), 0u);
  EXPECT_EQ(c.policy.check(), "");
}

TEST_F(CancellationTest, WhoGivesNothingBackForLongIsKilledForTheLastThatItHasBegun) {
  constexpr int64_t kSilent = Cancellation<PlainKit>::kSilentNs;
  c.grant(&s, 1);
  Plain* runs = c.submit(&s, 10 * kUs);
  c.submit(&s, 10 * kUs);
  cancel(runs, true, true);
  EXPECT_EQ(press_if([&](const Plain* t) { return t == runs; }, kSilent - 1), "");
  EXPECT_EQ(press(true, kSilent), "");  // what is behind it has begun
  EXPECT_EQ(press_if([&](const Plain* t) { return t == runs; }, kSilent), "1");
  EXPECT_FALSE(cancels.presses());
}

TEST_F(CancellationTest, TwoByForceKeepItShutUntilBothAreOut) {
  Policy::Lease* l = c.grant(&s, 1);
  Plain *first = c.submit(&s, 10 * kUs), *second = c.submit(&s, 10 * kUs);
  cancel(first, true, true);
  cancel(second, true, false);
  cancel(second, true, false);
  EXPECT_EQ(c.policy.check(), "");
  c.done(&s, first, 1);
  EXPECT_EQ(l->shut, kEnding);
  EXPECT_EQ(c.policy.check(), "");
  c.done(&s, second, 1);
  EXPECT_EQ(l->shut, 0);
}

TEST_F(CancellationTest, ItsRingIsOpenAgainWhenItHasEnded) {
  Policy::Lease* l = c.grant(&s, 1);
  Plain* runs = c.submit(&s, 10 * kUs);
  cancel(runs, true, true);
  EXPECT_EQ(l->shut, kEnding);
  c.done(&s, runs, 1);
  EXPECT_EQ(l->shut, 0);
  EXPECT_EQ(press(true), "");
  c.submit(&s, 10 * kUs);
  EXPECT_EQ(l->link->inflight.size, 1u);
}

}  // namespace
}  // namespace ray::task
