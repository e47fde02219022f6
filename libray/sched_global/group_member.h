// A node's side of placement groups: it reserves bundles when it is asked to, keeps them when the plan was recorded, and
// gives them back. Pure; a node's daemon would drive it beside its local scheduler, tests/sched_global does.
//
// Rules. (1) Every message may be lost, or come twice or late; each is answered by what is true now. (2) A plan below
// the highest that was heard of for the group is refused: it was given up. A higher one takes the place of one that
// was prepared and not committed. (3) What does not fit now and could later waits, and is answered when it fits.
// (4) What was prepared and heard no more of is given back after a while; a commit that comes later is told so.
// Bounded: the groups that it holds, and the last `remembered` of others.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "libray/sched_global/messages.h"

namespace ray::global {

struct MemberReply {
  enum Kind : uint8_t { kPrepared, kCommitted, kAborted, kRemoved } kind;
  Id group;
  uint64_t plan = 0;
  bool ok = true;
  std::string text;  // why not
};
using MemberReplies = std::vector<MemberReply>;

class GroupMember {
 public:
  enum class Taken : uint8_t { kYes, kLater, kNever };
  using Take = std::function<Taken(const Id& group, const std::vector<Bundle>& bundles)>;
  using Give = std::function<void(const Id& group, const std::vector<Bundle>& bundles)>;
  GroupMember(Take take, Give give, int64_t hold_ns = 30'000'000'000, size_t remembered = 4096)
      : take_(std::move(take)), give_(std::move(give)), hold_ns_(hold_ns), remembered_(remembered) {}

  void prepare(const Id& group, uint64_t plan, const std::vector<Bundle>& bundles, int64_t now, MemberReplies* out);
  void commit(const Id& group, uint64_t plan, MemberReplies* out);
  void abort(const Id& group, uint64_t plan, MemberReplies* out);
  void remove(const Id& group, MemberReplies* out);
  void room(MemberReplies* out);  // something became free: whoever waits is tried again, in order
  void tick(int64_t now);
  int64_t deadline() const;

  // Bundles that are prepared or committed, and of those that wait too: for heartbeats, which count them as held.
  std::vector<Bundle> promised() const;
  std::vector<std::pair<Id, Bundle>> committed() const;
  size_t groups() const { return groups_.size(); }

 private:
  struct Prepared {
    uint64_t plan = 0;  // 0: none
    std::vector<Bundle> bundles;
    bool taken = false;
    int64_t since = 0;
  };
  struct Group {
    uint64_t highest = 0;
    Prepared prepared;
    std::map<uint64_t, std::vector<Bundle>> committed;  // by plan
    bool empty() const { return prepared.plan == 0 && committed.empty(); }
  };
  void try_take(const Id& id, Group* g, MemberReplies* out);
  void drop_prepared(const Id& id, Group* g);
  void forget_some(const Id& id);

  const Take take_;
  const Give give_;
  const int64_t hold_ns_;
  const size_t remembered_;
  std::map<Id, Group> groups_;
  std::deque<Id> empty_;     // groups that hold nothing, oldest first; some may hold something again
  std::deque<std::pair<Id, uint64_t>> line_;  // plans that wait for room; some may be gone
};

}  // namespace ray::global
