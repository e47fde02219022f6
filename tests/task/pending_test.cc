// States of a task, what becomes of one whose execution came to nothing, and the order of an actor's calls
// (libray/task/pending.h, list.h, call_queue.h).
#include <gtest/gtest.h>

#include "tests/task/kit.h"

namespace ray::task {
namespace {

Plain with(int32_t retries, bool retry_on_error = false) {
  Plain t;
  t.retries_left = retries;
  t.retry_on_error = retry_on_error;
  return t;
}

Fate fate(Plain* t, Stop how, bool call = false) { return fate_of<PlainKit>(t, how, call); }

TEST(Pending, WaysBetweenStates) {
  Plain t;
  enter<PlainKit>(&t, State::kQueued);
  enter<PlainKit>(&t, State::kPushed);
  enter<PlainKit>(&t, State::kQueued);
  EXPECT_THROW(enter<PlainKit>(&t, State::kQueued), std::logic_error);
  EXPECT_THROW(enter<PlainKit>(&t, State::kLost), std::logic_error);
  EXPECT_THROW(enter<PlainKit>(&t, State::kWaiting), std::logic_error);
  enter<PlainKit>(&t, State::kFree);
  EXPECT_THROW(enter<PlainKit>(&t, State::kFree), std::logic_error);  // it ends once
}

TEST(Pending, WhatHadNotBegunIsNotLost) {
  for (int32_t retries : {0, 1, -1}) {
    Plain t = with(retries);
    EXPECT_EQ(fate(&t, Stop::kUnbegun), Fate::kSame);
    EXPECT_EQ(fate(&t, Stop::kReturned), Fate::kSame);
    EXPECT_EQ(t.retries_left, retries);
    EXPECT_EQ(t.attempt, 0u);
  }
}

TEST(Pending, WhatBeganRunsAgainAsOftenAsItMay) {
  Plain t = with(2);
  EXPECT_EQ(fate(&t, Stop::kDied), Fate::kAgain);
  EXPECT_EQ(fate(&t, Stop::kDied), Fate::kAgain);
  EXPECT_EQ(t.attempt, 2u);
  EXPECT_EQ(fate(&t, Stop::kUnbegun), Fate::kSame);  // the last retry too
  EXPECT_EQ(fate(&t, Stop::kDied), Fate::kEnds);
  Plain always = with(-1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(fate(&always, Stop::kDied), Fate::kAgain);
}

TEST(Pending, AnErrorIsTriedAgainIfItMayBe) {
  Plain t = with(1, true);
  EXPECT_EQ(fate(&t, Stop::kFailedForGood), Fate::kEnds);
  EXPECT_EQ(fate(&t, Stop::kFailed), Fate::kAgain);
  EXPECT_EQ(fate(&t, Stop::kFailed), Fate::kEnds);
  Plain not_on_error = with(1);
  EXPECT_EQ(fate(&not_on_error, Stop::kFailed), Fate::kEnds);
}

// A call without retries does not outlive its actor's process; one whose last retry waits has had some.
TEST(Pending, ACallThatHadNotBegunOutlivesARestartIfItMayBeTriedAgain) {
  Plain none = with(0), last = with(1);
  EXPECT_EQ(fate(&none, Stop::kUnbegun, true), Fate::kEnds);
  EXPECT_EQ(fate(&last, Stop::kUnbegun, true), Fate::kSame);
  EXPECT_EQ(fate(&last, Stop::kDied, true), Fate::kAgain);
  EXPECT_EQ(fate(&last, Stop::kUnbegun, true), Fate::kSame);
  EXPECT_EQ(fate(&last, Stop::kDied, true), Fate::kEnds);
}

TEST(Pending, ACancelledOneIsNotTriedAgain) {
  for (Stop how : {Stop::kReturned, Stop::kUnbegun, Stop::kDied}) {
    Plain t = with(0);
    t.cancelled = true;
    EXPECT_EQ(fate(&t, how), Fate::kCancel);
  }
}

TEST(Backlog, WhatComesBackGoesWhereItWas) {
  Plain t[6];
  Backlog<Plain> b;
  for (uint64_t i = 0; i < 6; ++i) t[i].submitted = i;
  for (int i : {1, 4, 5}) b.push_back(&t[i]);
  for (int i : {0, 2, 3}) b.give_back(&t[i]);
  EXPECT_TRUE(b.check());
  uint64_t n = 0;
  for (Plain* p = b.head; p; p = p->next) EXPECT_EQ(p->submitted, n++);
  b.remove(&t[3]);  // the last that came back: nothing is remembered of it
  b.remove(&t[0]);
  EXPECT_TRUE(b.check());
  b.give_back(&t[0]);
  EXPECT_EQ(b.head, &t[0]);
}

class CallsTest : public ::testing::Test {
 protected:
  void call(uint64_t seq, bool waits = false, bool out_of_order = false) {
    t[seq].seq = seq;
    if (waits) return calls.park(&t[seq], out_of_order);
    enter<PlainKit>(&t[seq], State::kQueued);
    calls.queue.push_back(&t[seq]);
  }
  std::string pump(size_t room = 100) {
    std::string order;
    calls.pump([&](Plain* p) {
      if (room == 0) return false;
      --room;
      enter<PlainKit>(p, State::kPushed);
      order += std::to_string(p->seq);
      return true;
    });
    EXPECT_EQ(calls.check(), "");
    return order;
  }
  void lose(uint64_t seq, bool began) { calls.lose(&t[seq], began); }
  Plain t[8];
  Calls calls;
};

TEST_F(CallsTest, OneThatWaitsForItsArgumentsHoldsUpThoseBehindIt) {
  call(0), call(1, true), call(2);
  EXPECT_EQ(pump(), "0");
  calls.complete(&t[1]);
  EXPECT_EQ(pump(), "12");
}

TEST_F(CallsTest, OutOfOrderItHoldsUpNobody) {
  call(0, true, true), call(1);
  EXPECT_EQ(pump(), "1");
  calls.complete(&t[0]);
  EXPECT_EQ(pump(), "0");
}

TEST_F(CallsTest, ThoseThatWaitedWhenTheOrderWasNotKnownStandAside) {
  call(0, true), call(1), call(2, true);
  calls.free_order();
  EXPECT_EQ(pump(), "1");
  calls.complete(&t[2]);
  calls.complete(&t[0]);
  EXPECT_EQ(pump(), "20");
}

TEST_F(CallsTest, BehindACancelledOneOthersGoOn) {
  call(0, true), call(1), call(2);
  EXPECT_EQ(pump(), "");
  EXPECT_TRUE(calls.remove(&t[0]));
  EXPECT_FALSE(calls.remove(&t[2]));  // nobody waited for that
  EXPECT_EQ(pump(), "1");
}

TEST_F(CallsTest, WhatComesBackGoesBeforeWhatWasCalledLater) {
  call(0), call(1), call(2), call(3);
  EXPECT_EQ(pump(2), "01");
  calls.give_back(&t[1]);
  calls.give_back(&t[0]);
  EXPECT_EQ(pump(), "0123");
}

TEST_F(CallsTest, LostCallsGoFirstInTheirOrderOrEnd) {
  for (uint64_t i = 0; i < 4; ++i) t[i].retries_left = i == 1 ? 0 : 1, call(i);
  EXPECT_EQ(pump(3), "012");
  lose(0, true), lose(1, false), lose(2, false);
  std::string ended, again;
  calls.settle_lost([&](Plain* p) { ended += std::to_string(p->seq); }, [&](Plain* p) { again += std::to_string(p->seq); });
  EXPECT_EQ(ended, "1");
  EXPECT_EQ(again, "0");
  EXPECT_EQ(t[2].retries_left, 1);
  EXPECT_EQ(pump(), "023");
}

// One that was tried again for an error stands in its ring behind calls that were made later.
TEST_F(CallsTest, LostCallsGoInTheOrderInWhichTheyWereMade) {
  for (uint64_t i = 0; i < 4; ++i) t[i].retries_left = 1, call(i);
  EXPECT_EQ(pump(), "0123");
  calls.give_back(&t[0]);
  EXPECT_EQ(pump(), "0");
  lose(2, false), lose(3, false), lose(0, false);
  calls.settle_lost([](Plain*) {}, [](Plain*) {});
  EXPECT_EQ(pump(), "023");
}

TEST_F(CallsTest, TheSameProcessByAnotherLinkGetsAllOfThem) {
  call(0), call(1);
  EXPECT_EQ(pump(), "01");
  lose(0, false), lose(1, false);
  calls.resume_lost([](Plain*) { FAIL(); });
  EXPECT_EQ(pump(), "01");
}

// Only the link that is over was told.
TEST_F(CallsTest, ACancelledOneDoesNotGoOverTheNextLink) {
  call(0), call(1);
  EXPECT_EQ(pump(), "01");
  t[0].cancelled = true;
  lose(0, false), lose(1, false);
  std::vector<Plain*> ended;
  calls.resume_lost([&](Plain* x) { ended.push_back(x); });
  EXPECT_EQ(ended, std::vector<Plain*>{&t[0]});
  EXPECT_EQ(pump(), "1");
}

}  // namespace
}  // namespace ray::task
