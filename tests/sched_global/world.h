// A cluster without processes, of one seed: nodes with a FIFO queue and workers as simple models, global schedulers, the
// control store's part, and a network between them that delays, loses and repeats messages. Nodes die, drain and join,
// schedulers are replaced by new ones that know nothing.
//
// The nodes reserve bundles with the real GroupMember and decide by the real scheduler's answers; everything else of
// them is a model. The world keeps books of its own and sees that
//   - no node's actors and groups hold more than it has, and none is sent more than the herd window explains;
//   - what is placed fits its node, is where it must be, and not on a node that the scheduler knew to be dead;
//   - no task moves more often than it may, and each runs once (unless its node died);
//   - whatever fits on some node ends within a bound, once nothing goes wrong any more;
//   - a group is ready with all its bundles where it was said, and nothing of it is left anywhere when it is gone.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "libray/sched_global/group_member.h"
#include "libray/sched_global/scheduler.h"
#include "libray/sim/clock.h"
#include "libray/sim/random.h"
#include "tests/sched_global/helpers.h"

namespace ray::global {


// What is planted, so that a checker has something to find.
enum class Fault { kNone, kWrongNode, kBounce, kLoseAnswers, kHideHeld, kRunTwice, kDeadUnknown, kLoseCommit, kLoseRemove };

struct WorldOptions {
  uint64_t seed = 1;
  uint32_t nodes = 8, instances = 1;
  double cpus = 4;
  Options scheduler;
  int64_t heartbeat_ns = 100 * sim::kMs;
  int64_t delay_ns = 200 * sim::kUs;  // a message takes up to twice that
  uint32_t lose_one_in = 0, repeat_one_in = 0;
  double bandwidth = 1.0;  // bytes per ns
  uint32_t window = 256;   // demands of a node that may be unanswered
  uint32_t queue_high = 2; // tasks in its queue per CPU; more are handed over
  bool deaths = false, drains = false, joins = false, replaces = false;
  Fault fault = Fault::kNone;
};

struct SimTask {
  TaskId id;
  uint32_t attempt = 0, hops = 0, moves = 0;
  bool pinned = false;
  Demand wants;  // the constant part
  int64_t run_ns = 0;
};

class World {
 public:
  explicit World(const WorldOptions& options);
  TaskId submit(NodeIndex home, Demand wants, int64_t run_ns);
  Id create_group(Strategy strategy, std::vector<Resources> bundles);
  void remove_group(const Id& id);
  void trouble(int64_t ns);  // a mix of work, and whatever the options say goes wrong
  // Nothing goes wrong any more; until all that can end has ended, or `ns` are over.
  void calm(int64_t ns);
  void run(int64_t ns);
  NodeIndex add_node(const Resources& total, const Labels& labels = {});
  void kill(NodeIndex node);
  std::string verdict();  // "" or what is wrong

  const std::map<NodeIndex, uint32_t>& ran() const { return ran_; }
  uint64_t finished() const { return finished_; }
  uint64_t unfinished() const { return tasks_.size(); }
  uint64_t moves() const { return moves_; }
  uint64_t ready_groups() const { return ready_; }
  uint64_t refusals() const { return refusals_; }
  int64_t now() const { return clock_.now(); }
  int64_t last_end() const { return last_end_; }
  GlobalScheduler& scheduler(size_t i) { return *instances_[i].core; }

 private:
  struct Spilled {
    SimTask task;
    std::vector<NodeIndex> refused;
    bool waits = false;
    NodeIndex sent_to = kNoNode;  // placed: until it says that it has it
    uint32_t sent_epoch = 0, sent_hops = 0;
    uint64_t turn = 0;            // of its timers
  };
  struct Node {
    NodeIndex index = kNoNode;
    uint32_t epoch = 0;
    bool alive = true, draining = false;
    bool buried = false;  // everybody knows that it is dead
    Resources total;
    Labels labels;
    std::map<std::string, Amount> free, held;
    std::deque<SimTask> queue, overflow;
    std::map<TaskId, SimTask> running;
    std::set<TaskId> actors;
    std::map<TaskId, Spilled> spilled;
    std::set<std::tuple<TaskId, uint32_t, uint32_t>> known;  // (id, attempt, hops) that came here
    std::set<std::tuple<TaskId, uint32_t, uint32_t>> declined;  // of them
    std::map<InstanceId, uint64_t> seen;
    std::map<uint64_t, Heartbeat::Ran> ran;
    uint64_t moved_bytes = 0, version = 0;
    int64_t moved_ns = 0;
    std::deque<std::pair<int64_t, Resources>> accepted;  // for good, lately
    std::unique_ptr<GroupMember> member;
  };
  struct Instance {
    InstanceId id = 0;
    std::unique_ptr<GlobalScheduler> core;
    std::set<NodeIndex> dead;  // that it was told of
    int64_t timer = INT64_MAX;
  };
  struct GroupState {
    GroupRow row;
    bool removed = false, ready = false, gone = false;
    uint64_t owner = 0;
  };

  // world.cc: nodes and tasks
  Node* node(NodeIndex n);
  bool fits(const Node& n, const Demand& d) const;
  bool ever_free(const Node& n, const Resources& r) const;  // besides what is held for good
  bool fits_free(const Node& n, const Resources& r) const;
  void take(Node* n, const Resources& r, Amount sign, bool for_good);
  void pump(Node* n);
  void start(Node* n);
  void finish(NodeIndex n, uint32_t epoch, TaskId id);
  void arrive(NodeIndex at, uint32_t epoch, SimTask t, NodeIndex sender, InstanceId by, uint64_t seq);
  void ask(NodeIndex n, uint32_t epoch, TaskId id, uint64_t turn);
  void answer(NodeIndex n, const Action& a, InstanceId by);
  void hand_over(NodeIndex n, uint32_t epoch, TaskId id, uint64_t turn, NodeIndex to, InstanceId by, uint64_t seq, SimTask t);
  void refused(NodeIndex n, NodeIndex by, TaskId id, uint32_t moved);
  void taken(NodeIndex n, TaskId id, uint32_t hops);
  void begin_anew(Node* n, TaskId id);
  void heartbeat(NodeIndex n, uint32_t epoch);
  void spill(Node* n, SimTask t, bool cannot = false);
  void drain(NodeIndex n);

  // world_groups.cc: instances, the control store, groups
  void send(std::function<void()> what, bool surely = false);
  void start_instance(size_t i);
  void to_instance(size_t i, std::function<void(GlobalScheduler&, int64_t, Actions*)> what);
  void carry_out(size_t i, Actions& actions);
  void check_place(size_t i, const Action& a);
  void group_message(size_t i, InstanceId by, const Action& a);
  void reply(size_t i, InstanceId to, NodeIndex n, uint32_t epoch, const MemberReplies& replies);
  void record(size_t i, InstanceId by, const Action& a);
  void group_ready(const Action& a);
  void tell_dead(NodeIndex n);
  void work();
  void harm();
  void check_groups();
  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = strprintf("at %.3f s: ", static_cast<double>(now()) / 1e9) + what;
  }
  bool faulty(Fault f) const { return options_.fault == f; }

  const WorldOptions options_;
  sim::Clock clock_;
  sim::Random random_;
  std::map<NodeIndex, Node> nodes_;
  std::vector<Instance> instances_;
  std::map<TaskId, SimTask> tasks_;  // not finished
  std::map<TaskId, Demand> demands_;
  std::set<TaskId> died_with_;       // a node died that had them, or was sent them: they may run twice
  std::map<Id, GroupState> groups_;
  std::map<NodeIndex, uint32_t> ran_;
  bool harmful_ = false;
  NodeIndex next_node_ = 0;
  InstanceId next_instance_ = 1;
  uint32_t next_task_ = 1, next_group_ = 1;
  uint64_t finished_ = 0, moves_ = 0, ready_ = 0, refusals_ = 0, placed_ = 0;
  int64_t last_end_ = 0;
  std::string wrong_;
};

}  // namespace ray::global
