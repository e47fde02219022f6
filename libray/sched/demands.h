// What waits: of every client the shapes that it wants leases of, the actors that want a worker, the groups that are to be
// reserved; in which order, and who has waited too long.
//
// The rule of fairness. *Whatever fits beside what is held for good starts within a bound that does not depend on how long
// others go on.* Who waits is served in the order of (leases that its client has, how long it waits), so a recursion has a
// worker per level and not per call. Who has waited for `age_ns` (twice as long for each lease that it has of its shape)
// is *due*: it stands in the list of those who are, in the order in which they fell due, and has a turn when it is its
// turn (round.h). A grant sends a demand to the end of its line and its age back to nothing; nothing else that happens to
// others makes anybody younger.
//
// Used by the local scheduler alone; a pure structure, on its thread.
//
// Invariants (check()):
//  - Exactly who wants more, could have it some day, and whose group (if any) is reserved stands in a line: a client's, that
//    of the actors, or that of the groups. Who can never have it is reported once and stands in none.
//  - Who stands in a line has a time at which it is due, and stands in the list of those.
//  - `have` and `blocked` of a demand are those of its leases; Leases knows which shapes have more than they want.
//  - Clients that wait stand in two orders: by (leases, how long the first of its line waits), and by (levels of tasks above
//    it, leases). A change of one client costs that client's place. A round looks at the first of them, at those with
//    something new, and, while more wait, at some of the others in turn; looks() counts.
//  - stirs() counts what may let somebody in who did not fit.
//  - If the node is to know what other nodes may serve (spill_ns), exactly what waits, stands in no group, asks for something
//    and is bound to no environment or node stands in the list of that, by how long it waits; what can never be had here first.
//    One call looks at a bounded number of these.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "libray/base/status.h"
#include "libray/sched/foreign.h"
#include "libray/sched/leases.h"
#include "libray/sched/placement_groups.h"
#include "libray/sched/requests.h"

namespace ray::sched {

// A look through many that may take several rounds, and begins anew when something was stirred meanwhile.
template <typename At>
struct Look {
  At at{};  // where the next round goes on
  uint64_t stirs = 0;
  bool done = true, again = true;
  // Whether there is anything to look at now.
  bool goes_on(uint64_t now) {
    again |= std::exchange(stirs, now) != now;
    if (!done) return true;
    if (!again) return false;
    done = again = false;
    at = At{};
    return true;
  }
};

// Requests of one client that wait; or the actors, or the groups.
struct Line {
  std::map<uint64_t, Request*> by_seq;
  std::set<std::pair<Amount, uint64_t>> by_cpu;  // of the node's that it needs
  Look<std::pair<Amount, uint64_t>> look;        // through by_cpu, see candidates()
  std::set<uint64_t> fresh;                      // that no round has looked at
};

class Demands {
 public:
  Demands(ResourceTable* table, PlacementGroups* groups, Leases* leases, int64_t age_ns, int64_t spill_ns)
      : table_(table), groups_(groups), leases_(leases), age_ns_(age_ns), spill_ns_(spill_ns) {}

  // ---- clients
  Status define(uint32_t client, uint32_t shape, const Resources& resources, const Pool& pool, const Placement& where);
  Status want(uint32_t client, uint32_t shape, uint32_t want, const TaskId& example);
  void pause(uint32_t client, bool paused);  // nothing is given to it
  void forget(uint32_t client);              // it has no leases any more
  bool knows(uint32_t client) const { return clients_.count(client) > 0; }
  bool wants_or_has(uint32_t client) const;
  Demand* find(uint32_t client, uint32_t shape);
  void granted(Demand* d, int64_t now);
  void returned(Demand* d, bool blocked, int64_t now);
  void blocked(Demand* d, bool yes) { d->blocked += yes ? 1u : -1u; }
  void foreign(Demand* d, int by);  // it has one stand-in more, or less; its place in its line and its age stay
  void set_level(uint32_t client, uint32_t level);  // how many tasks above wait for its tasks

  // ---- actors and groups
  void want_actor(const ActorId& actor, const Resources& resources, const Pool& pool, const Placement& where);
  void cancel_actor(const ActorId& actor);  // waits no more
  bool waits(const ActorId& actor) const { return actors_.count(actor) > 0; }
  void want_group(Group* g) { settle(g); }
  void reserved(Group* g);  // what is to be placed in it waits now
  struct LeftBehind {
    std::vector<std::pair<uint32_t, uint32_t>> shapes;  // client, shape
    std::vector<ActorId> actors;
  };
  LeftBehind removed(Group* g);  // nothing waits for it any more
  void forget(Request* r);       // it is about to go

  // ---- who waits
  bool wants_more(const Request& r) const;
  std::vector<Request*> take_hopeless() { return std::exchange(hopeless_, {}); }  // to be reported
  std::string infeasible(const Request& r) const;
  void begin_round(int64_t now);  // new ones wait from now on
  uint64_t round() const { return round_; }
  void stir() { ++stirs_; }
  uint64_t stirs() const { return stirs_; }
  uint32_t planned(const Request& r) const { return r.round == round_ ? r.planned : 0; }
  // Tasks that ask for nothing run as many at a time as there are processors.
  bool zero_room(const Demand& d) const;
  uint32_t leases_of(const Request& r) const;
  bool fits(const Request& r, const View& free) const;
  void end_turn_of(Request* r);  // without a result, or because what it was for is there
  void set_due(Request* r, int64_t at);
  // Those who are due, in order, at most so many; f may give them another time.
  void each_due(int64_t now, size_t most, const std::function<void(Request*)>& f);
  int64_t next_due(int64_t after) const;  // 0: nobody will be
  // The requests of one line that a round looks at, whose client has so many leases.
  struct Walk {
    uint32_t leases;
    std::vector<Request*> todo;
    size_t at = 0;
  };
  // *again: whether there are others that the next round is to look at.
  std::vector<Walk> walks(bool* again);
  // Clients that a round looks at by their levels: the first, and some of the others in turn.
  using Level = std::tuple<uint32_t, uint32_t, uint32_t>;  // levels from the deepest that there can be, leases, client
  struct Deepest {
    std::vector<uint32_t> clients;
    bool in_turn = false;  // some of the others are among them,
    Level next{};          // and where these go on,
    bool last = true;      // or nobody comes after them
  };
  Deepest deepest();
  // The first requests of each of them, those first whose client has the most levels above it, then those whose client has
  // fewest leases, at last those of the actors; until f says that it is enough, and so do we.
  bool deepest_first(const Deepest& clients, const std::function<bool(uint32_t leases, Request*)>& f);
  // It was not: the next round looks at others. Whether there are any.
  bool pass(const Deepest& clients);
  uint64_t looks() const { return looks_; }  // at requests, by all rounds

  // ---- what may go to other nodes (spills.cc)
  std::vector<Spill> spills(int64_t now);
  int64_t next_spill() const;  // when something will have waited long enough, or had; 0: nothing may go
  size_t spillable() const { return spills_.size(); }

  // ---- for queries and tests
  bool anybody_waits() const { return !due_.empty(); }
  size_t clients() const { return clients_.size(); }
  size_t shapes() const;
  size_t waiting_actors() const { return actors_.size(); }
  uint32_t waiting() const;
  // Who stands in a line, and how many leases it waits for.
  void each_waiting(const std::function<void(const Request& r, uint32_t leases)>& f) const;
  std::string check(const std::map<uint32_t, Foreign>& foreign) const;
  void each_turn(const std::function<void(const Request&)>& f) const;

 private:
  struct Client {
    std::map<uint32_t, Demand> demands;
    Line line;
    uint32_t open = 0;  // demands that want or have something
    bool paused = false;
    uint32_t level = 0;
    // Its places in the orders of those who wait, and whether it has any.
    uint32_t leases = 0, listed_level = 0;
    uint64_t first = 0;
    bool listed = false;
  };
  Status fill(Request* r, const Resources& resources, const Pool& pool, const Placement& where);
  Line* line_of(Request* r);
  void settle(Request* r);
  void enter(Request* r);
  void leave(Request* r);
  void wait_anew(Request* r, int64_t now);
  int64_t patience(const Request& r) const;
  void count(Demand* d);
  void list(uint32_t index, Client* c);
  std::vector<uint32_t> clients_to_look_at(bool* again);
  bool first_of(const Line& line, uint32_t leases, const std::function<bool(uint32_t, Request*)>& f);
  std::string check_order(uint32_t index, const Client& c) const;
  void candidates(Line* line, std::vector<Request*>* out, bool* again);
  std::string check_line(const Request& q, size_t* lined) const;
  void may_spill(Request* r, int64_t since);
  void spills_no_more(Request* r);
  std::string check_spills(const Request& q) const;

  ResourceTable* table_;
  PlacementGroups* groups_;
  Leases* leases_;
  const int64_t age_ns_, spill_ns_;  // spill_ns: 0: nothing goes to other nodes
  std::map<uint32_t, Client> clients_;
  std::map<ActorId, ActorDemand> actors_;
  Line actor_line_, group_line_;
  // Clients whose line is not empty.
  std::set<uint32_t> waiting_clients_;
  std::set<std::tuple<uint32_t, uint64_t, uint32_t>> in_order_;   // leases, first of its line, client
  std::set<Level> deepest_;
  Look<Level> deepest_look_;
  std::set<uint32_t> fresh_;                                      // with something that no round has looked at
  std::set<uint32_t> unfinished_;                                 // of whose line a round looked at a part
  uint32_t unfinished_at_ = 0;                                    // where the next round goes on with these
  Look<uint32_t> look_;                                           // through waiting_clients_
  std::set<Due> due_;                   // all that waits
  std::set<Due> spills_;                // what may go to other nodes, by since when it waits
  Due spill_at_;                        // where the next call goes on
  std::vector<Request*> hopeless_;      // to be reported
  uint64_t stirs_ = 1, looks_ = 0;
  uint64_t round_ = 0;
  uint64_t next_seq_ = 1;
};

}  // namespace ray::sched
