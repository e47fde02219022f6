// What a node's scheduler says to the cluster's: sums over all that waits and over what does not come back. Each costs what
// there is to add up; asked a few times a second.
#include <algorithm>

#include "libray/sched/local_scheduler.h"
#include "libray/wire/limits.h"

namespace ray::sched {
namespace {

// What is added up is what clients ask for, as often as they like: it ends where amounts do.
constexpr Amount kMost = static_cast<Amount>(wire::kMaxResourceAmount) * kUnit;

class Sum {
 public:
  explicit Sum(const ResourceTable& table) : table_(table), amounts_(table.own()) {}
  void add(const Need& need, uint32_t times) {
    for (const auto& [entry, amount] : need.items) {
      if (entry >= amounts_.size()) continue;  // an instance, or of a group: its resource is counted
      Amount more;
      if (__builtin_mul_overflow(amount, Amount{times}, &more)) more = kMost;
      amounts_[entry] = std::min(amounts_[entry] + std::min(more, kMost), kMost);
    }
  }
  std::map<std::string, double> get() const {
    std::map<std::string, double> out;
    for (uint32_t i = 0; i < amounts_.size(); ++i)
      if (amounts_[i] > 0) out[table_.name(i)] = static_cast<double>(amounts_[i]) / kUnit;
    return out;
  }

 private:
  const ResourceTable& table_;
  std::vector<Amount> amounts_;
};

}  // namespace

void Demands::each_waiting(const std::function<void(const Request& r, uint32_t leases)>& f) const {
  for (const auto& [index, c] : clients_)
    for (const auto& [shape, d] : c.demands)
      if (d.line) f(d, d.want - d.have - d.foreign);
  for (const auto& [id, a] : actors_)
    if (a.line) f(a, 1);
  for (const auto& [id, g] : groups_->all())
    if (g.line) f(g, 1);
}

std::map<std::string, double> LocalScheduler::queued() const {
  Sum sum(table_);
  demands_.each_waiting([&sum](const Request& r, uint32_t leases) {
    if (!r.group || r.kind == Request::kGroup) sum.add(r.need, leases);  // what is placed in a group takes nothing more
  });
  return sum.get();
}

std::map<std::string, double> LocalScheduler::held_for_good() const {
  Sum sum(table_);
  for (const auto& [index, w] : pools_.all())
    if (w.state == WorkerState::kActor) sum.add(w.held.need, 1);
  for (const auto& [id, g] : groups_.all())
    for (const Bundle& b : g.bundles)
      if (g.ready) sum.add(b.need, 1);
  return sum.get();
}

}  // namespace ray::sched
