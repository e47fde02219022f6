// Life cycle of actors: every path through the state machine, then random events with invariants checked.
#include "libray/actor/manager.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ray::actor {
namespace {

constexpr uint32_t kCreator = 1, kCaller = 2, kWorker = 100;

struct ManagerTest : ::testing::Test {
  Manager m;
  Actions out;
  uint32_t next = 0;

  ActorId create(Spec s = {}) {
    s.id = actor_of(child_task(origin_of(TaskId{}), ++next));
    if (!s.creator) s.creator = kCreator;
    if (!s.job) s.job = 1;
    s.record = "record";
    s.dependencies = {return_object(child_task(origin_of(TaskId{}), 77), 0)};
    ActorId id = s.id;
    m.create(std::move(s), &out);
    EXPECT_EQ(m.check(), "");
    return id;
  }
  // Created, assigned, constructed.
  ActorId living(Spec s = {}, uint32_t worker = kWorker) {
    ActorId id = create(std::move(s));
    if (!m.find(id)->spec.name.empty()) m.name_claimed(id, RAY_OK, id, "", &out);
    m.worker_assigned(id, worker, &out);
    m.constructed(worker, id, 0, RAY_OK, "", &out);
    EXPECT_EQ(state(id), wire::kActorAlive);
    return id;
  }
  uint32_t state(const ActorId& id) { return m.find(id)->state; }
  size_t count(Action::Kind kind) {
    return static_cast<size_t>(
        std::count_if(out.begin(), out.end(), [&](const Action& a) { return a.kind == kind; }));
  }
  const Action* last(Action::Kind kind) {
    for (auto it = out.rbegin(); it != out.rend(); ++it)
      if (it->kind == kind) return &*it;
    return nullptr;
  }
  void TearDown() override { EXPECT_EQ(m.check(), ""); }
};

TEST_F(ManagerTest, CreationWaitsForAWorkerThenConstructs) {
  ActorId id = create();
  EXPECT_EQ(count(Action::kHold), 1u);
  EXPECT_EQ(count(Action::kWantWorker), 1u);
  EXPECT_EQ(count(Action::kReply), 0u);  // nobody asked for an answer
  m.connect(id, kCaller, &out);
  EXPECT_EQ(state(id), wire::kActorPending);
  m.worker_assigned(id, kWorker, &out);
  ASSERT_NE(last(Action::kInit), nullptr);
  EXPECT_EQ(last(Action::kInit)->process, kWorker);
  out.clear();
  m.constructed(kWorker, id, 0, RAY_OK, "", &out);
  EXPECT_EQ(state(id), wire::kActorAlive);
  ASSERT_EQ(count(Action::kTell), 1u);
  EXPECT_EQ(last(Action::kTell)->process, kCaller);
  EXPECT_EQ(m.of_worker(kWorker)->spec.id, id);
}

// Others may hold an actor whose constructor's arguments are not there yet.
TEST_F(ManagerTest, AnnouncedThenCreated) {
  const ActorId id = actor_of(child_task(origin_of(TaskId{}), next + 1));
  m.announce(id, kCreator, 1);
  m.announce(id, kCaller, 1);  // says nothing new
  m.connect(id, kCaller, &out);
  EXPECT_EQ(state(id), wire::kActorPending);
  EXPECT_EQ(count(Action::kWantWorker), 0u);
  out.clear();
  ASSERT_EQ(create(), id);
  EXPECT_EQ(count(Action::kWantWorker), 1u);
  EXPECT_EQ(count(Action::kHold), 1u);
  ASSERT_EQ(count(Action::kTell), 1u);
  EXPECT_EQ(last(Action::kTell)->process, kCaller);
  EXPECT_FALSE(m.find(id)->announced);
}

TEST_F(ManagerTest, AnnouncedAndNeverCreated) {
  ActorId ids[4];
  for (uint32_t i = 0; i < 4; ++i) {
    ids[i] = actor_of(child_task(origin_of(TaskId{}), 100 + i));
    m.announce(ids[i], kCreator, i == 3 ? 9 : 1);
    m.connect(ids[i], kCaller, &out);
  }
  out.clear();
  m.constructed(kCaller, ids[0], 0, RAY_ACTOR_DIED, "not mine to say", &out);
  EXPECT_EQ(state(ids[0]), wire::kActorPending);
  m.constructed(kCreator, ids[0], 0, RAY_ACTOR_DIED, "an argument failed", &out);
  EXPECT_EQ(state(ids[0]), wire::kActorDead);
  EXPECT_EQ(m.find(ids[0])->cause, "an argument failed");
  m.kill(ids[1], false, &out);
  EXPECT_EQ(state(ids[1]), wire::kActorDead);
  m.job_ended(9, {}, &out);
  EXPECT_EQ(state(ids[3]), wire::kActorDead);
  m.process_died(kCreator, "gone", &out);
  EXPECT_EQ(state(ids[2]), wire::kActorDead);
  EXPECT_EQ(count(Action::kTell), 4u);
  Spec late;  // what was on its way when it was killed
  late.id = ids[1];
  late.creator = kCreator;
  m.create(std::move(late), &out);
  EXPECT_EQ(state(ids[1]), wire::kActorDead);
  EXPECT_EQ(count(Action::kWantWorker), 0u);
}

// A retried creator makes the same actor: that the one before died with its arguments missing does not matter.
TEST_F(ManagerTest, AnnouncedAgainByWhoRunsAgain) {
  for (const bool announces : {false, true}) {
    const ActorId id = actor_of(child_task(origin_of(TaskId{}), next + 1));
    m.announce(id, kCreator, 1);
    m.process_died(kCreator, "gone", &out);
    EXPECT_EQ(state(id), wire::kActorDead);
    out.clear();
    if (announces) {
      m.announce(id, 9, 1);
      EXPECT_EQ(state(id), wire::kActorPending);
      EXPECT_EQ(m.check(), "");
    }
    Spec s;
    s.creator = 9;
    s.req_id = 5;
    s.lifetime = RAY_LIFETIME_DETACHED;
    ASSERT_EQ(create(s), id);
    EXPECT_EQ(count(Action::kWantWorker), 1u);
    EXPECT_EQ(state(id), wire::kActorPending);
    EXPECT_EQ(last(Action::kReply)->code, RAY_OK);
  }
}

// Whoever may call it hears how before it is created, and a kill counts.
TEST_F(ManagerTest, AnnouncedWithItsFacts) {
  const ActorId id = actor_of(child_task(origin_of(TaskId{}), next + 1));
  m.announce(id, kCreator, 1, {2, 3, RAY_ACTOR_OUT_OF_ORDER, 4});
  m.connect(id, kCreator, &out);
  EXPECT_EQ(count(Action::kTell), 0u);  // who said so knows
  m.connect(id, kCaller, &out);
  ASSERT_EQ(count(Action::kTell), 1u);
  EXPECT_EQ(m.find(id)->spec.max_task_retries, 3);
  EXPECT_EQ(m.find(id)->spec.max_pending_calls, 4u);
  EXPECT_EQ(m.find(id)->spec.flags, static_cast<uint32_t>(RAY_ACTOR_OUT_OF_ORDER));
  m.kill(id, true, &out);
  EXPECT_EQ(state(id), wire::kActorPending);
  Spec s;
  s.max_restarts = 2;
  ASSERT_EQ(create(std::move(s)), id);
  m.kill(id, true, &out);
  EXPECT_EQ(state(id), wire::kActorPending);
  m.kill(id, true, &out);  // both restarts are used up
  EXPECT_EQ(state(id), wire::kActorDead);
}

TEST_F(ManagerTest, TheEndOfAJobSparesWhatItIsTold) {
  Spec of_spared, of_other;
  of_spared.creator = 41;
  of_other.creator = 42;
  const ActorId one = create(std::move(of_spared)), two = create(std::move(of_other));
  m.job_ended(1, {41}, &out);
  EXPECT_EQ(state(one), wire::kActorPending);
  EXPECT_EQ(state(two), wire::kActorDead);
}

// Nobody holds it when it is created at last: it is not started.
TEST_F(ManagerTest, AnnouncedAndDropped) {
  const ActorId id = actor_of(child_task(origin_of(TaskId{}), next + 1));
  m.announce(id, kCreator, 1);
  m.unreferenced(id, &out);
  EXPECT_EQ(state(id), wire::kActorPending);
  ASSERT_EQ(create(), id);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_EQ(count(Action::kWantWorker), 0u);
}

TEST_F(ManagerTest, CreateIsIdempotent) {
  Spec s;
  s.req_id = 5;
  ActorId id = create(s);
  s.id = id;
  s.creator = 9;
  s.req_id = 6;
  m.create(s, &out);
  EXPECT_EQ(count(Action::kWantWorker), 1u);
  EXPECT_EQ(count(Action::kReply), 2u);
  EXPECT_EQ(last(Action::kReply)->process, 9u);
  EXPECT_EQ(last(Action::kReply)->id, id);
}

TEST_F(ManagerTest, NameIsClaimedFirst) {
  Spec s;
  s.name = "counter";
  s.ns = "n";
  s.req_id = 3;
  ActorId id = create(s);
  EXPECT_EQ(count(Action::kClaimName), 1u);
  EXPECT_EQ(count(Action::kWantWorker), 0u);
  EXPECT_EQ(m.find("counter", "n"), nullptr);
  m.name_claimed(id, RAY_OK, id, "", &out);
  EXPECT_EQ(last(Action::kReply)->code, RAY_OK);
  EXPECT_EQ(count(Action::kWantWorker), 1u);
  ASSERT_NE(m.find("counter", "n"), nullptr);
  EXPECT_EQ(m.find("counter", "other"), nullptr);
  m.kill(id, false, &out);
  EXPECT_EQ(count(Action::kReleaseName), 1u);
  EXPECT_EQ(m.find("counter", "n"), nullptr);
}

TEST_F(ManagerTest, ATakenNameIsAnErrorOrTheOtherActor) {
  Spec s;
  s.name = "counter";
  s.req_id = 3;
  ActorId first = living(s);
  ActorId second = create(s);
  m.name_claimed(second, RAY_OK, first, "", &out);
  EXPECT_EQ(last(Action::kReply)->code, RAY_ALREADY_EXISTS);
  EXPECT_EQ(m.find(second), nullptr);
  s.flags = RAY_ACTOR_GET_IF_EXISTS;
  ActorId third = create(s);
  m.name_claimed(third, RAY_OK, first, "", &out);
  EXPECT_EQ(last(Action::kReply)->code, RAY_OK);
  EXPECT_EQ(last(Action::kReply)->id, first);
  EXPECT_EQ(m.find(third), nullptr);
  EXPECT_EQ(count(Action::kDrop), 2u);
  ActorId fourth = create(s);
  m.name_claimed(fourth, RAY_UNAVAILABLE, fourth, "no shard", &out);
  EXPECT_EQ(last(Action::kReply)->code, RAY_UNAVAILABLE);
}

// The answer goes to the process that waits for it, not to the one that asked first.
TEST_F(ManagerTest, ACreatorThatRunsAgainDuringTheClaimIsAnswered) {
  Spec s;
  s.name = "keeper";
  s.lifetime = RAY_LIFETIME_DETACHED;
  s.req_id = 3;
  ActorId id = create(s);
  m.process_died(kCreator, "killed", &out);
  EXPECT_EQ(m.find(id)->spec.req_id, 0u);  // a later process of the same number has requests of its own
  s.id = id;
  s.creator = 9;
  s.req_id = 4;
  m.create(s, &out);
  EXPECT_EQ(count(Action::kReply), 0u);
  m.name_claimed(id, RAY_OK, id, "", &out);
  ASSERT_EQ(count(Action::kReply), 1u);
  EXPECT_EQ(last(Action::kReply)->process, 9u);
  EXPECT_EQ(last(Action::kReply)->req_id, 4u);
  EXPECT_FALSE(last(Action::kReply)->other);
}

// The dead are remembered for late callers, so many and so many bytes of them, and nothing else of them is.
TEST_F(ManagerTest, TheDeadAreForgottenInTheEnd) {
  Spec s;
  s.metadata.assign(200'000, 'x');
  for (int i = 0; i < 200; ++i) {
    ActorId id = create(s);
    m.connect(id, kCaller, &out);
    m.kill(id, false, &out);
  }
  EXPECT_LE(m.all().size(), 85u);
  s.metadata.clear();
  for (int i = 0; i < 5000; ++i) {
    s.id = actor_of(child_task(origin_of(TaskId{}), ++next));
    s.job = 1;
    m.create(s, &out);
    m.kill(s.id, false, &out);
  }
  EXPECT_LE(m.all().size(), 4096u);
  EXPECT_FALSE(m.keeps_job(1));
}

TEST_F(ManagerTest, AFailedConstructorIsTheEnd) {
  Spec s;
  s.max_restarts = -1;
  ActorId id = create(s);
  m.worker_assigned(id, kWorker, &out);
  m.constructed(kWorker, id, 0, RAY_TASK_FAILED, "packed", &out);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_EQ(m.find(id)->code, RAY_TASK_FAILED);
  EXPECT_EQ(m.find(id)->cause, "packed");
  EXPECT_EQ(count(Action::kKill), 1u);
  EXPECT_EQ(count(Action::kDrop), 1u);
  m.process_died(kWorker, "killed", &out);
  EXPECT_EQ(m.find(id)->cause, "packed");
}

TEST_F(ManagerTest, RestartsAreCounted) {
  Spec s;
  s.max_restarts = 2;
  ActorId id = living(s);
  m.connect(id, kCaller, &out);
  for (uint32_t i = 1; i <= 2; ++i) {
    m.process_died(kWorker, "crash", &out);
    EXPECT_EQ(state(id), wire::kActorRestarting);
    EXPECT_EQ(m.find(id)->incarnation, i);
    EXPECT_EQ(count(Action::kDrop), 0u);
    m.worker_assigned(id, kWorker, &out);
    m.constructed(kWorker, id, i - 1, RAY_OK, "", &out);  // a late word of the last incarnation
    EXPECT_EQ(state(id), wire::kActorRestarting);
    m.constructed(kWorker, id, i, RAY_OK, "", &out);
    EXPECT_EQ(state(id), wire::kActorAlive);
  }
  m.process_died(kWorker, "crash", &out);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_NE(m.find(id)->cause.find("crash"), std::string::npos);
  EXPECT_NE(m.find(id)->cause.find("restarted 2 times"), std::string::npos);
  EXPECT_EQ(count(Action::kDrop), 1u);
  EXPECT_TRUE(m.find(id)->spec.record.empty());
}

TEST_F(ManagerTest, DeathInTheConstructorRestartsToo) {
  Spec s;
  s.max_restarts = 1;
  ActorId id = create(s);
  m.worker_assigned(id, kWorker, &out);
  m.process_died(kWorker, "crash", &out);
  EXPECT_EQ(state(id), wire::kActorRestarting);
  m.worker_assigned(id, kWorker + 1, &out);
  m.constructed(kWorker + 1, id, 1, RAY_OK, "", &out);
  EXPECT_EQ(state(id), wire::kActorAlive);
}

TEST_F(ManagerTest, InfiniteRestarts) {
  Spec s;
  s.max_restarts = -1;
  ActorId id = living(s);
  for (uint32_t i = 1; i <= 50; ++i) {
    m.process_died(kWorker, "crash", &out);
    m.worker_assigned(id, kWorker, &out);
    m.constructed(kWorker, id, i, RAY_OK, "", &out);
    ASSERT_EQ(state(id), wire::kActorAlive);
  }
}

TEST_F(ManagerTest, KillForGoodAndKillThatMayRestart) {
  Spec s;
  s.max_restarts = -1;
  ActorId id = living(s);
  m.kill(id, true, &out);
  EXPECT_EQ(count(Action::kKill), 1u);
  m.process_died(kWorker, "killed", &out);
  EXPECT_EQ(state(id), wire::kActorRestarting);
  m.worker_assigned(id, kWorker, &out);
  m.constructed(kWorker, id, 1, RAY_OK, "", &out);
  m.kill(id, false, &out);
  m.process_died(kWorker, "killed", &out);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_EQ(m.find(id)->cause, "it was killed by `ray.kill`");
  m.kill(id, false, &out);  // again: nothing
  EXPECT_EQ(count(Action::kKill), 2u);
}

TEST_F(ManagerTest, KillBeforeItHasAWorker) {
  ActorId id = create();
  m.kill(id, false, &out);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_EQ(count(Action::kCancelWorker), 1u);
  m.worker_assigned(id, kWorker, &out);  // too late: the worker is of no use
  EXPECT_EQ(last(Action::kKill)->process, kWorker);
}

// A kill that finds no process is no less a kill: it uses up a restart, or ends the actor.
TEST_F(ManagerTest, KillThatMayRestartBeforeItHasAWorker) {
  ActorId none = create();
  m.kill(none, true, &out);
  EXPECT_EQ(state(none), wire::kActorDead);
  Spec s;
  s.max_restarts = 1;
  ActorId one = create(std::move(s));
  m.kill(one, true, &out);
  EXPECT_EQ(state(one), wire::kActorPending);
  m.kill(one, true, &out);
  EXPECT_EQ(state(one), wire::kActorDead);
}

TEST_F(ManagerTest, GracefulExitIsNotRestarted) {
  Spec s;
  s.max_restarts = -1;
  ActorId id = living(s);
  m.exiting(kWorker, id, "it wanted to", &out);
  EXPECT_EQ(state(id), wire::kActorAlive);  // its last results still count
  m.process_died(kWorker, "exited with status 0", &out);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_EQ(m.find(id)->cause, "it wanted to");
}

TEST_F(ManagerTest, TheLastHandleEndsIt) {
  ActorId id = living();
  m.unreferenced(id, &out);
  EXPECT_EQ(count(Action::kWanted), 1u);
  EXPECT_EQ(count(Action::kKill), 0u);
  m.exiting(kWorker, id, "it wanted to", &out);
  m.process_died(kWorker, "exited", &out);
  EXPECT_EQ(state(id), wire::kActorDead);
}

TEST_F(ManagerTest, TheLastHandleGoneWhileItIsConstructed) {
  ActorId id = create();
  m.worker_assigned(id, kWorker, &out);
  m.unreferenced(id, &out);
  EXPECT_EQ(count(Action::kWanted), 0u);
  m.constructed(kWorker, id, 0, RAY_OK, "", &out);
  EXPECT_EQ(count(Action::kWanted), 1u);
}

TEST_F(ManagerTest, TheLastHandleGoneBeforeItHasAWorker) {
  Spec s;
  s.max_restarts = -1;
  ActorId id = create(s);
  m.unreferenced(id, &out);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_EQ(count(Action::kCancelWorker), 1u);
}

// Who has no handle any more gives its name up while it still works off its calls.
TEST_F(ManagerTest, TheLastHandleTakesTheNameAlong) {
  Spec s;
  s.name = "counter";
  ActorId id = living(s);
  m.unreferenced(id, &out);
  EXPECT_EQ(m.find("counter", ""), nullptr);
  EXPECT_EQ(count(Action::kReleaseName), 1u);
  EXPECT_EQ(state(id), wire::kActorAlive);
  m.process_died(kWorker, "exited", &out);
  EXPECT_EQ(count(Action::kReleaseName), 1u);
}

// Who is killed for good or ends itself gives its name up at once, not when its process is gone: find
// does not answer it any more, so another may be called so.
TEST_F(ManagerTest, ANameIsFreeFromTheEndOn) {
  for (bool by_itself : {false, true}) {
    out.clear();
    Spec s;
    s.name = "counter";
    s.max_restarts = -1;
    uint32_t worker = by_itself ? kWorker + 1 : kWorker;
    ActorId id = living(s, worker);
    ASSERT_NE(m.find("counter", ""), nullptr);
    m.kill(id, true, &out);  // it will be back, under its name
    EXPECT_EQ(count(Action::kReleaseName), 0u);
    if (by_itself) m.exiting(worker, id, "", &out);
    else m.kill(id, false, &out);
    EXPECT_EQ(m.find("counter", ""), nullptr);
    EXPECT_EQ(count(Action::kReleaseName), 1u);
    m.process_died(worker, "killed", &out);
    EXPECT_EQ(state(id), wire::kActorDead);
    EXPECT_EQ(count(Action::kReleaseName), 1u);
  }
}

TEST_F(ManagerTest, AnUnreferencedActorIsNotRestarted) {
  Spec s;
  s.max_restarts = -1;
  ActorId id = living(s);
  m.unreferenced(id, &out);
  m.process_died(kWorker, "crash", &out);
  EXPECT_EQ(state(id), wire::kActorDead);
}

TEST_F(ManagerTest, DetachedActorsOutliveHandlesAndJob) {
  Spec s;
  s.lifetime = RAY_LIFETIME_DETACHED;
  s.name = "keeper";
  ActorId id = living(s);
  m.unreferenced(id, &out);
  m.job_ended(1, {}, &out);
  EXPECT_EQ(state(id), wire::kActorAlive);
  EXPECT_EQ(count(Action::kWanted), 0u);
  ASSERT_NE(m.find("keeper", ""), nullptr);
  m.kill(id, false, &out);
  m.process_died(kWorker, "killed", &out);
  EXPECT_EQ(state(id), wire::kActorDead);
}

TEST_F(ManagerTest, AJobsEndEndsItsActors) {
  Spec s;
  s.max_restarts = -1;
  ActorId mine = living(s);
  s.job = 2;
  ActorId other = living(s, kWorker + 1);
  m.job_ended(1, {}, &out);
  EXPECT_EQ(state(mine), wire::kActorDead);
  EXPECT_EQ(state(other), wire::kActorAlive);
  m.process_died(kWorker, "killed", &out);
  EXPECT_EQ(state(mine), wire::kActorDead);
}

TEST_F(ManagerTest, LateNameOfADeadActorIsGivenBack) {
  Spec s;
  s.name = "late";
  ActorId id = create(s);
  m.job_ended(1, {}, &out);
  EXPECT_EQ(state(id), wire::kActorDead);
  m.name_claimed(id, RAY_OK, id, "", &out);
  EXPECT_EQ(count(Action::kReleaseName), 1u);
  EXPECT_EQ(state(id), wire::kActorDead);
  EXPECT_EQ(count(Action::kWantWorker), 0u);
}

TEST_F(ManagerTest, RandomEventsKeepTheInvariants) {
  std::mt19937 random(7);
  auto pick = [&](uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random); };
  std::vector<ActorId> ids;
  std::map<ActorId, uint32_t> incarnation;
  std::set<ActorId> dead;
  std::map<std::string, ActorId> names;
  uint32_t worker = kWorker;
  for (int i = 0; i < 30000; ++i) {
    if (ids.empty() || (ids.size() < 40 && pick(10) == 0)) {
      Spec s;
      s.max_restarts = static_cast<int32_t>(pick(4)) - 1;
      s.lifetime = static_cast<int32_t>(pick(2));
      s.job = 1 + pick(3);
      if (pick(3) == 0) s.name = "n" + std::to_string(pick(5));
      ids.push_back(create(s));
    }
    size_t at = pick(static_cast<uint32_t>(ids.size()));
    ActorId id = ids[at];
    const Actor* a = m.find(id);
    if (!a) {
      ids.erase(ids.begin() + static_cast<ptrdiff_t>(at));
      continue;
    }
    switch (pick(9)) {
      case 0:
        // As the control store does it: the first has the name until it is given back.
        if (a->naming) m.name_claimed(id, RAY_OK, names.emplace(a->spec.name, id).first->second, "", &out);
        break;
      case 1:
      case 2: m.worker_assigned(id, ++worker, &out); break;
      case 3: m.constructed(a->worker, id, a->incarnation, pick(8) ? RAY_OK : RAY_TASK_FAILED, "", &out); break;
      case 4: if (a->worker != kNoProcess) m.process_died(a->worker, "crash", &out); break;
      case 5: if (pick(5) == 0) m.kill(id, pick(2), &out); break;
      case 6: if (pick(10) == 0) m.unreferenced(id, &out); break;
      case 7: m.connect(id, pick(4), &out); break;
      case 8: if (pick(200) == 0) m.job_ended(1 + pick(3), {}, &out); break;
    }
    ASSERT_EQ(m.check(), "");
    for (const Action& x : out)
      if (x.kind == Action::kReleaseName)
        std::erase_if(names, [&](const auto& entry) { return entry.second == x.id; });
    a = m.find(id);
    if (!a) continue;
    ASSERT_GE(a->incarnation, incarnation[id]);  // never used twice
    incarnation[id] = a->incarnation;
    if (dead.count(id)) {
      ASSERT_EQ(a->state, wire::kActorDead) << "the dead do not come back";
    }
    if (a->state == wire::kActorDead) {
      dead.insert(id);
      if (pick(4) == 0 && a->worker == kNoProcess) ids.erase(ids.begin() + static_cast<ptrdiff_t>(at));
    }
    out.clear();
  }
  EXPECT_GT(dead.size(), 100u);
}

}  // namespace
}  // namespace ray::actor
