// Workers: who is idle, who starts, who has work, in pools of those that are alike (language, job, environment). How many
// processes there may be, and when one starts or ends.
//
// Used by the local scheduler alone; a pure structure, on its thread.
//
// Invariants (check()):
//  - An idle worker stands in its pool's list and in the node's, everybody else in neither.
//  - starting() is the sum of what the pools start; blocked() and actors() count workers.
//  - A pool is remembered while it has workers, starts some, or has trouble in starting one.
//  - Nothing is given to a worker that was told to end or was killed.
//  - In a round no more are started than there is room for under the limit, in the order of those who need them, besides
//    what the scheduler grants beyond it (plan()).
#pragma once
#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libray/sched/resource_table.h"

namespace ray::sched {

struct Pool {
  int32_t language = 0;
  uint32_t job = 0;
  uint32_t env = 0;  // number of the runtime environment; 0 = the job's own
  bool gpus = false;  // what runs there holds some: a library fixes what it sees of them at its first use
  friend auto operator<=>(const Pool&, const Pool&) = default;
};

enum class WorkerState { kIdle, kLeased, kActor };

struct Worker {
  uint32_t index = 0;
  Pool pool;
  WorkerState state = WorkerState::kIdle;
  Holding held;
  bool blocked = false;
  uint32_t lease = 0, last_client = 0;
  int64_t idle_since = 0;
  uint64_t idle_place = 0;  // in its pool
  bool stopping = false;
  bool killed = false;
};

class WorkerPools {
 public:
  struct Limits {
    uint32_t most = 0;    // processes, those that start included
    uint32_t warm = 0;    // idle workers that stay
    int64_t idle_ns = 0;  // others end after that
  };
  explicit WorkerPools(const Limits& limits) : limits_(limits) {}

  // ---- what happens to them
  void ready(uint32_t worker, const Pool& pool, int64_t now);
  void start_failed(const Pool& pool, int64_t now);  // it died before it was ready
  void forget(uint32_t worker);                      // it is gone; nobody has it
  void kill(Worker* w);                              // it was killed: nothing more is given to it
  void stop(Worker* w, int64_t now = 0);             // an idle one is told to end; 0: since the next round
  void make_idle(Worker* w, int64_t now);
  void lease(Worker* w, uint32_t lease, uint32_t client);
  void becomes_actor(Worker* w);
  void set_blocked(Worker* w, bool yes);
  void prestart(const Pool& pool, uint32_t count);
  void job_ended(uint32_t job);
  void env_gone(uint32_t env);

  // ---- in a round of decisions
  void begin_round(int64_t now);
  // The idle worker that has worked for this client before, else the one that was used last. Null: none is idle.
  Worker* take_idle(const Pool& pool, uint32_t client);
  bool has_idle(const Pool& pool) const;
  // One is missing. Whether one that starts, or that will be, can be counted on.
  bool plan(const Pool& pool, int64_t now);
  uint32_t room() const { return room_; }      // how many may still be started
  void set_room(uint32_t room) { room_ = room; }
  bool comes(const Pool& pool, int64_t now) const;  // one starts, or will when its command is tried again
  struct Start {
    Pool pool;
    uint32_t count;
  };
  std::vector<Start> start(int64_t now, int64_t* again_at);  // *again_at: when to try again what has failed; 0: never
  Worker* in_the_way();                        // idle, of another pool than one that is missing, at the limit
  Worker* idle_of_another(const Pool& pool);   // the one that has been idle longest
  Worker* longest_idle();
  Worker* too_old(int64_t now);                // idle for too long, and not among those that stay
  int64_t next_too_old() const;                // when one will be; 0: never

  // ---- questions
  Worker* find(uint32_t worker);
  const Worker* find(uint32_t worker) const;
  size_t size() const { return workers_.size(); }
  uint32_t processes() const { return static_cast<uint32_t>(workers_.size()) + starting_; }
  uint32_t starting() const { return starting_; }
  uint32_t blocked() const { return blocked_; }
  uint32_t actors() const { return actors_; }
  size_t idle() const { return idle_.size(); }
  // Until when those that start, and those that were told to end or killed, are counted on; 0: there are none.
  int64_t starts_until() const;
  int64_t leaves_until() const;
  const Limits& limits() const { return limits_; }
  size_t pools() const { return pools_.size(); }
  size_t prestarts() const { return prestart_.size(); }
  const std::map<uint32_t, Worker>& all() const { return workers_; }  // for queries and check()
  std::string check() const;

 private:
  struct State {
    std::map<uint64_t, uint32_t> idle;  // by when they were used: place -> worker
    uint32_t starting = 0;
    int64_t starting_since = 0;  // that nobody has come
    uint32_t failures = 0;       // in a row
    int64_t retry_at = 0;
  };
  State* find(const Pool& pool);
  const State* find(const Pool& pool) const;
  State* not_starting(const Pool& pool);
  void take_out(Worker* w);
  void leaves(Worker* w, int64_t now);
  void tidy(const Pool& pool);
  bool too_many_idle() const;

  Limits limits_;
  std::map<uint32_t, Worker> workers_;
  std::map<Pool, State> pools_;
  std::map<Pool, uint32_t> prestart_;
  std::set<std::pair<int64_t, uint32_t>> idle_;  // since when, worker
  std::map<uint32_t, int64_t> leaving_;  // since when; 0: since the next round
  std::vector<uint32_t> told_;           // of these, since the last round
  uint32_t starting_ = 0, blocked_ = 0, actors_ = 0;
  uint64_t next_place_ = 1;
  // Of the round.
  std::map<Pool, uint32_t> planned_;    // workers that are missing
  std::map<Pool, uint32_t> may_start_;  // how many of these, in the order of those who need them
  uint32_t room_ = 0;                   // how many more
};

}  // namespace ray::sched
