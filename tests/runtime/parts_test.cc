// Parts of a runtime that need no node: callbacks, notifications, unread errors, kept buffers.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "libray/runtime/kept_buffers.h"
#include "libray/runtime/notifications.h"
#include "libray/runtime/unread_errors.h"
#include "libray/wire/msgpack.h"

namespace ray::test {
namespace {

struct Parts : ::testing::Test {
  std::unique_ptr<wire::NodePage> page = std::make_unique<wire::NodePage>();
  Bells bells;
  Callbacks callbacks{bells};
  Notifications notifications{nullptr, callbacks, bells};
  UnreadErrors unread{callbacks};
  Parts() { bells.attach(page.get(), 1); }

  // An object that failed, of no runtime.
  Object* failed(const char* message) {
    uint32_t index;
    Object* o = object_slab().alloc(&index);
    o->index = index;
    o->runtime = nullptr;
    o->borrowed = o->excused = false;
    o->waiters = nullptr;
    o->counts = 1;
    o->error = make_error(RAY_TASK_FAILED, message);
    o->state = ObjState::kError;
    return o;
  }
  void free(Object* o) {
    o->counts = 0;
    object_slab().free(o, o->index);
  }
  uint32_t n_unread() {
    std::string answer;
    uint32_t n = 0;
    unread.take(&answer);
    wire::Reader r(answer);
    EXPECT_TRUE(r.array(&n));
    return n;
  }
};

TEST_F(Parts, CallbacksRunInOrderAndKnowWhoseTheyAre) {
  std::vector<int> ran;
  callbacks.add([&] {
    ran.push_back(1);
    EXPECT_TRUE(callbacks.here());
    callbacks.add([&] { ran.push_back(3); });  // runs in the same round
  });
  callbacks.add([&] { ran.push_back(2); });
  EXPECT_FALSE(callbacks.here());
  EXPECT_FALSE(callbacks.empty());
  callbacks.run();
  EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
  EXPECT_TRUE(callbacks.empty());
  EXPECT_FALSE(callbacks.here());
}

TEST_F(Parts, AddAndRingWakesThePulseThread) {
  page->bells[1].urgent = 1;
  callbacks.add([] {});
  EXPECT_EQ(page->bells[1].urgent, 1u);
  callbacks.add_and_ring([] {});
  EXPECT_EQ(page->bells[1].urgent, 0u);
}

TEST_F(Parts, ANotificationIsTakenOnce) {
  Object* o = failed("it");
  static int told = 0, ended = 0;
  ray_notify notify = RAY_NOTIFY_INIT;
  notify.fn = [](const ray_completion* c, void*) {
    ++told;
    EXPECT_EQ(c->code, RAY_STREAM_END);
  };
  notify.free_user = [](void*) { ++ended; };
  Notification n;
  ASSERT_TRUE(notifications.read(notify, &n).ok());
  n.object = o;
  const uint64_t first = notifications.next_token(), second = notifications.next_token();
  EXPECT_NE(first, second);
  notifications.add(first, n);
  notifications.add(second, n);
  o->waiters = new Waiter{new Waiter{nullptr, nullptr, first}, nullptr, second};
  EXPECT_EQ(notifications.check(), "");
  Notification taken;
  ASSERT_TRUE(notifications.cancel(first, &taken));
  EXPECT_EQ(taken.object, o);
  EXPECT_EQ(o->waiters->token, second);
  EXPECT_EQ(o->waiters->next, nullptr);
  EXPECT_FALSE(notifications.cancel(first, &taken));
  ASSERT_TRUE(notifications.take(second, &taken));
  EXPECT_EQ(notifications.size(), 0u);
  notifications.deliver(taken, nullptr, RAY_COMPLETION_STREAM_END, nullptr);
  EXPECT_EQ(told, 0);  // by whoever runs callbacks
  callbacks.run();
  EXPECT_EQ(told, 1);
  EXPECT_EQ(ended, 1);
  delete o->waiters;
  o->error->release();
  free(o);
}

TEST_F(Parts, ChecksOfNotificationsSeeOneThatWaitsForNothing) {
  ray_notify notify = RAY_NOTIFY_INIT;
  notify.fn = [](const ray_completion*, void*) {};
  Notification n;
  ASSERT_TRUE(notifications.read(notify, &n).ok());
  notifications.add(notifications.next_token(), n);
  EXPECT_NE(notifications.check(), "");
}

TEST_F(Parts, AnErrorThatNobodySawIsToldOnce) {
  Object* o = failed("lost");
  unread.freed(o);
  EXPECT_EQ(unread.check(), "");
  EXPECT_EQ(n_unread(), 1u);
  EXPECT_EQ(n_unread(), 0u);
  callbacks.run();  // the line of the log
  free(o);
}

TEST_F(Parts, AnErrorThatWasSeenOrExcusedIsNotMissed) {
  for (int how = 0; how < 3; ++how) {
    Object* o = failed("seen");
    const uint8_t ready = 1;
    if (how == 0) UnreadErrors::saw(&o, &ready, 1);
    else if (how == 1) UnreadErrors::excuse(&o, 1);
    else unread.stop();
    unread.freed(o);
    EXPECT_EQ(n_unread(), 0u) << how;
    free(o);
  }
}

TEST_F(Parts, UnreadErrorsAreBounded) {
  for (size_t i = 0; i < UnreadErrors::kMost + 10; ++i) {
    Object* o = failed("many");
    unread.freed(o);
    free(o);
  }
  EXPECT_EQ(unread.check(), "");
  EXPECT_EQ(n_unread(), UnreadErrors::kMost);
}

TEST_F(Parts, KeptBuffersGoTogether) {
  KeptBuffers kept;
  static int released = 0;
  ray_buffer buffers[2] = {RAY_BUFFER_INIT, RAY_BUFFER_INIT};
  for (ray_buffer& b : buffers)
    b.release = [](ray_buffer* gone) {
      gone->release = nullptr;
      ++released;
    };
  EXPECT_FALSE(kept.any());
  kept.keep(buffers, 2);
  EXPECT_TRUE(kept.any());
  EXPECT_EQ(buffers[0].release, nullptr);  // they are no longer the caller's
  EXPECT_FALSE(kept.old(steady_ns()));
  EXPECT_TRUE(kept.old(steady_ns() + 1'000'000'000));
  kept.release();
  EXPECT_EQ(released, 2);
  EXPECT_FALSE(kept.any());
}

}  // namespace
}  // namespace ray::test
