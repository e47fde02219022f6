// A cluster's membership without processes, of one seed: the real cores of a head and of its members, and sessions between
// them as libray/net gives them (in order, once, over connections that break and come back), with delays. Connections are
// cut, noticed or not; nodes are cut off, stopped for seconds, die, leave and join; the head may die.
//
// The world keeps books of its own and sees that
//   - an index is given once, views are dense, a dead row never changes again, on the head and on every member;
//   - nobody is declared dead for whom there is no reason, and whoever dies is, within a bound;
//   - whoever was declared dead ends by itself as soon as it can know, and all end when the head is gone;
//   - nobody serves a request of a node that it knows to be dead;
//   - each call ends once, in time, with the right answer or an error for which there is a reason;
//   - when nothing goes wrong any more, all see the same table.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "libray/cluster/calls.h"
#include "libray/cluster/head.h"
#include "libray/cluster/member.h"
#include "libray/sim/clock.h"
#include "libray/sim/random.h"

namespace ray::cluster {

// What is planted, so that a checker has something to find.
enum class Fault { kNone, kSameIndex, kRevive, kLoseTables, kHideFencing, kLoseBeats, kBlindHead, kLoseAnswers, kWrongAnswer,
                   kDeafMembers, kServeDead };

struct WorldOptions {
  uint64_t seed = 1;
  uint32_t nodes = 4;
  bool cuts = false, silent_cuts = false, partitions = false, pauses = false, head_pauses = false;
  bool crashes = false, leaves = false, joins = false, head_dies = false;
  Fault fault = Fault::kNone;
};

class World {
 public:
  explicit World(const WorldOptions& options);
  void trouble(int64_t ns);
  void calm(int64_t ns);
  std::string verdict();  // "" or what is wrong
  uint64_t deaths() const { return deaths_; }
  uint64_t answered() const { return answered_; }
  uint64_t failed() const { return failed_; }
  uint64_t zombies() const { return zombies_; }

 private:
  struct Pending {
    std::string want;
    int64_t until;
    NodeIndex to;
  };
  struct Node {
    uint64_t number = 0;  // of the world; 0 is the head. Its session's number too
    NodeId id;
    std::unique_ptr<Member> member;
    Calls calls;
    bool running = true;
    int64_t paused_until = 0;
    std::deque<std::function<void(Node*)>> inbox;  // while it is stopped
    uint64_t turn = 0;  // of its timer
    std::map<uint64_t, Pending> pending;
    std::map<NodeIndex, Row> seen;
  };
  struct Lane {
    std::deque<std::string> queue;
    bool moving = false;
  };
  struct Link {  // between the head and one member
    bool up = false, forgotten = false;
    bool up_at[2] = {false, false};  // as head and member know it
    int64_t cut_off_until = 0;
    int64_t harmed_at = INT64_MIN;   // last time that something was wrong with it, or with one of its ends
    uint64_t turn = 0;
    Lane lane[2][2];                 // to the head, to the member; urgent, normal
  };
  struct Dead {  // that is to be noticed
    NodeId id;
    int64_t by;
  };

  void add_node();
  void connect(uint64_t number);
  void redial(uint64_t number, int64_t after);
  void cut(uint64_t number, bool silent);
  void notice(uint64_t number, int side);
  void at_node(uint64_t number, std::function<void(Node*)> what);
  void go_on(uint64_t number);
  void push(uint64_t number, int side, bool urgent, std::string text);
  void move(uint64_t number, int side, int lane);
  void arrive(uint64_t number, int side, const std::string& text);
  void apply(HeadActions actions);
  void apply(Node* n, MemberActions actions);
  void apply(Node* n, CallActions actions);
  void check_row(Node* n, const Row& row);
  void head_row(const Row& row);
  void served(Node* n, const Message& m);
  void done(Node* n, const CallAction& a);
  void timer(Node* n);
  void stop(Node* n, bool crash);
  void pause(Node* n, int64_t ns);
  void kill_head();
  void call();
  void harm();
  void run(int64_t ns);
  bool excused(const NodeId& id);
  Node* head() { return &nodes_.at(0); }
  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = strprintf("at %.3f s: ", static_cast<double>(clock_.now()) / 1e9) + what;
  }
  bool faulty(Fault f) const { return options_.fault == f; }

  const WorldOptions options_;
  HeadOptions head_options_;
  MemberOptions member_options_;
  sim::Clock clock_;
  sim::Random random_;
  std::unique_ptr<Head> head_;
  std::map<uint64_t, Node> nodes_;
  std::map<uint64_t, Link> links_;
  std::map<NodeId, uint64_t> numbers_;
  std::map<NodeIndex, NodeId> given_;
  std::vector<Dead> to_notice_;
  uint64_t next_ = 1;
  uint32_t view_ = 0;
  bool harmful_ = false;
  int64_t head_harmed_at_ = INT64_MIN;
  uint64_t deaths_ = 0, answered_ = 0, failed_ = 0, zombies_ = 0;
  std::string wrong_;
};

}  // namespace ray::cluster
