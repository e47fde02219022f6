// What waits here and may run on another node: see demands.h, and LocalScheduler::spills.
#include "libray/sched/demands.h"

namespace ray::sched {
namespace {

constexpr size_t kLook = 64;  // that one call looks at

}  // namespace

// To be called whenever it begins to wait, or has got something. since 0: it can never be had here, and does not wait first.
void Demands::may_spill(Request* r, int64_t since) {
  spills_no_more(r);
  if (!r->travels) return;
  r->spills = {since, next_seq_++, r};
  spills_.insert(r->spills);
}

void Demands::spills_no_more(Request* r) {
  if (!r->spills.request) return;
  spills_.erase(r->spills);
  r->spills = {};
}

int64_t Demands::next_spill() const {
  if (spills_.empty()) return 0;
  const int64_t since = spills_.begin()->at;
  return since ? since + spill_ns_ : 1;
}

// Goes on where the last call stopped, and begins anew when there is nothing behind that is old enough. What fits now is
// passed over: a worker is being started for it.
std::vector<Spill> Demands::spills(int64_t now) {
  std::vector<Spill> out;
  const View free = table_->now();
  size_t n = 0;
  auto it = spills_.lower_bound(spill_at_);
  for (; it != spills_.end() && n < kLook; ++it, ++n) {
    const Request& q = *it->request;
    const bool never = it->at == 0;
    if (!never && it->at + spill_ns_ > now) break;
    ++looks_;
    if (!never && fits(q, free)) continue;
    Spill s;
    s.resources = q.asks;
    s.pool = q.pool;
    s.since = it->at;
    s.never = never;
    if (never) s.why = infeasible(q);
    if (q.kind == Request::kActor) {
      s.actor = static_cast<const ActorDemand&>(q).actor;
      s.more = 1;
    } else {
      const auto& d = static_cast<const Demand&>(q);
      s.client = d.client;
      s.shape = d.shape;
      s.more = d.want - d.have - d.foreign;
      s.example = d.example;
    }
    out.push_back(std::move(s));
  }
  spill_at_ = n == kLook && it != spills_.end() ? *it : Due{};
  return out;
}

std::string Demands::check_spills(const Request& q) const {
  const bool lined = q.line && q.since, never = !q.line && q.reported && wants_more(q);
  const bool listed = q.spills.request != nullptr;
  if (listed != (q.travels && (lined || never)))
    return listed ? "something is spilled that does not wait" : "what waits is not spilled";
  if (listed && (q.spills.request != &q || !spills_.count(q.spills))) return "what may be spilled is not listed";
  if (listed && (q.spills.at == 0) != never) return "what can be had here is spilled as if it could not, or the other way around";
  return "";
}

}  // namespace ray::sched
