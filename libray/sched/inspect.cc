// What queries and tests see of the local scheduler, and its invariants.
#include <algorithm>

#include "libray/sched/local_scheduler.h"
#include "libray/sched/round.h"

namespace ray::sched {

std::map<std::string, double> LocalScheduler::total() const {
  std::map<std::string, double> out;
  for (size_t i = 0; i < names_.size(); ++i)
    if (total_[i] > 0 && !is_slot_[i]) out[names_[i]] = static_cast<double>(total_[i]) / kUnit;
  return out;
}

std::map<std::string, double> LocalScheduler::available(const std::vector<uint32_t>& unused) const {
  std::vector<Amount> left = free_;
  for (uint32_t index : unused) {
    auto w = workers_.find(index);
    if (w == workers_.end() || !w->second.lease) continue;
    take(&left, w->second.held, +1);
    left[w->second.held.cpu_index] -= w->second.lent;
  }
  std::map<std::string, double> out;
  for (size_t i = 0; i < names_.size(); ++i)
    if (total_[i] > 0 && !is_slot_[i])
      out[names_[i]] = static_cast<double>(std::clamp<Amount>(left[i], 0, total_[i])) / kUnit;
  return out;
}

LocalScheduler::Counts LocalScheduler::counts() const {
  Counts n;
  for (const auto& [index, w] : workers_) {
    n.idle += w.state == kIdle;
    n.leased += w.state == kLeased;
    n.actors += w.state == kActor;
    n.blocked += w.blocked;
  }
  n.starting = starting_;
  for (const auto& [index, c] : clients_)
    for (const auto& [shape, d] : c.demands) n.waiting += d.want > d.have && !d.gone;
  n.waiting += static_cast<uint32_t>(actors_.size());
  return n;
}

int64_t LocalScheduler::busy_since(uint32_t worker) const {
  auto it = workers_.find(worker);
  if (it == workers_.end() || it->second.state == kIdle) return -1;
  auto lease = leases_.find(it->second.lease);
  return lease == leases_.end() ? it->second.idle_since : lease->second.granted_at;
}

bool LocalScheduler::busy() const {
  if (!leases_.empty()) return true;
  for (const auto& [index, w] : workers_)
    if (w.state == kActor) return true;
  return false;
}

const char* LocalScheduler::worker_state(uint32_t worker) const {
  auto it = workers_.find(worker);
  if (it == workers_.end()) return "";
  switch (it->second.state) {
    case kIdle: return "idle";
    case kLeased: return it->second.blocked ? "blocked" : "leased";
    case kActor: return "actor";
  }
  return "";
}

std::map<std::string, double> LocalScheduler::held(uint32_t worker) const {
  std::map<std::string, double> out;
  auto it = workers_.find(worker);
  if (it == workers_.end()) return out;
  for (const auto& [resource, amount] : it->second.held.items)
    if (instance_id_[resource] < 0) out[names_[resource]] = static_cast<double>(amount) / kUnit;
  return out;
}

std::vector<std::pair<const char*, uint64_t>> LocalScheduler::sizes() const {
  uint64_t shapes = 0;
  for (const auto& [index, c] : clients_) shapes += c.demands.size();
  return {{"resources", names_.size()}, {"pools", pools_.size()}, {"prestarts", prestart_.size()},
          {"clients", clients_.size()}, {"shapes", shapes}, {"leases", leases_.size()},
          {"waiting_actors", actors_.size()}, {"reserved_groups", groups_.size()}};
}

std::string LocalScheduler::check() const {
  if (!broken_.empty()) return broken_;
  std::string broken = check_amounts();
  if (broken.empty()) broken = check_clients();
  if (broken.empty()) broken = check_lines();
  return broken;
}

// What is held and what is free makes the totals, and nothing is held twice.
std::string LocalScheduler::check_amounts() const {
  std::vector<Amount> sum(names_.size(), 0), lent(names_.size(), 0);
  std::vector<bool> lendable(names_.size(), false);
  std::map<const Group*, uint32_t> users;
  uint32_t blocked = 0;
  for (const auto& [index, w] : workers_) {
    for (const auto& [r, a] : w.held.items) sum[r] += a;
    lent[w.held.cpu_index] += w.lent;
    blocked += w.blocked;
    if (w.held.group) ++users[w.held.group];
    if (w.lent > w.held.cpu()) return "a worker lends more than it holds";
    if ((w.state == kLeased) != (w.lease != 0) && !w.stopping) return "a lease without its worker";
  }
  if (blocked != blocked_) return "the count of blocked workers is wrong";
  lendable[kCpu] = true;
  for (const auto& [id, g] : groups_) {
    if (g.users != users[&g]) return "a group's count of users is wrong";
    if (g.removed && g.users == 0) return "a removed group holds resources for nobody";
    for (const auto& slots : g.slots)
      if (auto cpu = slots.find(kCpu); cpu != slots.end()) lendable[cpu->second] = true;
    if (!g.ready) continue;
    for (const auto& [r, a] : g.need.items) sum[r] += a;
  }
  for (size_t i = 0; i < names_.size(); ++i) {
    if (total_[i] - sum[i] + lent[i] != free_[i]) return "free amount of '" + names_[i] + "' is wrong";
    if (!lendable[i] && free_[i] < 0) return "'" + names_[i] + "' is oversubscribed";
  }
  return "";
}

std::string LocalScheduler::check_clients() const {
  std::map<uint32_t, std::set<uint32_t>> held;
  std::map<std::pair<uint32_t, uint32_t>, std::pair<uint32_t, uint32_t>> of_shape;  // have, blocked
  std::map<uint32_t, uint32_t> reclaiming;
  for (const auto& [id, lease] : leases_) {
    held[lease.client].insert(id);
    reclaiming[lease.client] += lease.reclaiming;
    auto w = workers_.find(lease.worker);
    if (w == workers_.end() || w->second.lease != id)
      return "a lease of a worker that is not its own";
    auto& [have, blocked] = of_shape[{lease.client, lease.shape}];
    ++have;
    blocked += w->second.blocked;
  }
  for (const auto& [index, c] : clients_) {
    if (c.held != held[index]) return "a client's set of leases is wrong";
    if (c.reclaiming != reclaiming[index]) return "a client's count of reclaimed leases is wrong";
    uint32_t open = 0;
    for (const auto& [shape, d] : c.demands) {
      if (std::pair(d.have, d.blocked) != of_shape[{index, shape}]) return "a demand's counts of leases are wrong";
      open += d.want > 0 || d.have > 0;
    }
    if (open != c.open) return "a client's count of open demands is wrong";
  }
  uint32_t starting = 0;
  size_t idle = 0;
  for (const auto& [pool, p] : pools_) {
    starting += p.starting;
    idle += p.idle.size();
    for (uint32_t index : p.idle)
      if (!idle_.count({workers_.at(index).idle_since, index})) return "an idle worker that the node does not list";
  }
  if (starting != starting_) return "the count of starting workers is wrong";
  if (idle != idle_.size()) return "the node's list of idle workers is wrong";
  return "";
}

// Exactly who waits stands in a line.
std::string LocalScheduler::check_lines() const {
  size_t lined = 0;
  std::string broken;
  auto look = [&](const Request& q) {
    bool parked = q.group && q.kind != Request::kGroup && !q.group->ready;
    bool waits = wants_more(q) && !parked && !q.reported;
    if (waits != (q.line != nullptr)) broken = waits ? "who waits stands in no line" : "who does not wait stands in a line";
    if (!q.line) return;
    ++lined;
    auto it = q.line->by_seq.find(q.seq);
    if (it == q.line->by_seq.end() || it->second != &q) broken = "a place in a line is somebody else's";
    if (!due_.count({q.due, q.seq, const_cast<Request*>(&q)})) broken = "who waits is never due";
    if (q.line->by_cpu.size() != q.line->by_seq.size()) broken = "the two orders of a line differ";
  };
  for (const auto& [index, c] : clients_) {
    for (const auto& [shape, d] : c.demands) look(d);
    if (waiting_clients_.count(index) != (c.line.by_seq.empty() ? 0u : 1u)) broken = "a client's line is not looked at";
  }
  for (const auto& [id, a] : actors_) look(a);
  for (const auto& [id, g] : groups_) look(g);
  if (lined != due_.size()) broken = "something is due that does not wait";
  return broken;
}

// Nobody is barred for the sake of one who cannot be placed, and no turn is longer than the longest.
void LocalScheduler::check_turns() {
  if (!broken_.empty()) return;
  std::vector<Amount> all = returnable();
  for (const Due& due : due_) {
    const Request& q = *due.request;
    if (!q.turn_ends) continue;
    if (q.turn_ends > decided_at_ + (options_.turn_ns << options_.max_turn_shift)) broken_ = "a turn that is too long";
    if (!fits(q, all) && slowed_at_ != decided_at_)
      broken_ = "a turn of {" + q.text + "}, which cannot be placed even if all leases come back";
  }
}

}  // namespace ray::sched
