// Resources whose units are told apart; see rule (6) in local_scheduler.h. An instance is one more
// entry in the tables of totals and free amounts, and so are the shares that a bundle has of
// instances: what is held is counted, given back and checked by the same code as everything else.
// Only the choice is here.
#include <algorithm>

#include "libray/sched/local_scheduler.h"

namespace ray::sched {
namespace {

constexpr Amount kMaxInstances = 1024;  // of more units than that none is told from another

}  // namespace

void LocalScheduler::make_instances(const std::string& name) {
  const int32_t index = known(name);
  if (index < 0) return;
  const uint32_t resource = static_cast<uint32_t>(index);
  const Amount total = total_[resource];
  if (total == 0 || total > kMaxInstances * kUnit) return;
  for (Amount left = total; left > 0; left -= kUnit) {
    uint32_t entry = add_index(name, true);
    total_[entry] = free_[entry] = std::min(left, kUnit);
    auto& list = instances_[resource];
    instance_id_[entry] = static_cast<int32_t>(list.size());
    list.push_back({entry, static_cast<uint32_t>(list.size())});
  }
}

bool LocalScheduler::enough(uint32_t resource, Amount amount,
                            const std::vector<Amount>& free) const {
  return free[resource] >= amount && pick(resource, amount, free, nullptr);
}

// Chooses instances and adds them to `out`. False: as many are not to be had, although the sum of
// what is free may be larger.
bool LocalScheduler::pick(uint32_t resource, Amount amount, const std::vector<Amount>& free,
                          Need* out) const {
  if (instances_.empty()) return true;
  auto found = instances_.find(resource);
  if (found == instances_.end()) return true;
  Amount whole = amount - amount % kUnit, part = amount % kUnit;
  const Instance* shared = nullptr;  // for the part: the fullest that has room
  for (const Instance& i : found->second) {
    if (whole > 0 && free[i.entry] >= kUnit) {
      if (out) out->items.emplace_back(i.entry, kUnit);
      whole -= kUnit;
    } else if (part > 0 && free[i.entry] >= part &&
               (!shared || free[i.entry] < free[shared->entry])) {
      shared = &i;
    }
  }
  if (whole > 0 || (part > 0 && !shared)) return false;
  if (out && shared) out->items.emplace_back(shared->entry, part);
  return true;
}

// The need with the instances that it takes. They are there: fits() said so.
LocalScheduler::Need LocalScheduler::with_instances(const Need& need,
                                                    const std::vector<Amount>& free) const {
  Need exact = need;
  if (instances_.empty()) return exact;
  for (const auto& [resource, amount] : need.items) (void)pick(resource, amount, free, &exact);
  return exact;
}

// ---- groups: a bundle has its own entries for its shares of instances
// -------------------------------

bool LocalScheduler::fits_group(const Group& group, std::vector<Amount> free) const {
  for (const Need& bundle : group.bundles) {
    if (!fits(bundle, free)) return false;
    take(&free, with_instances(bundle, free), -1);
  }
  return true;
}

void LocalScheduler::reserve_instances(Group* group, size_t bundle, const Need& exact) {
  for (const auto& [entry, share] : exact.items) {
    if (instance_id_[entry] < 0) continue;
    const uint32_t resource = static_cast<uint32_t>(known(names_[entry]));
    const uint32_t own = new_slot(names_[entry]);
    instance_id_[own] = instance_id_[entry];
    total_[own] = free_[own] = share;
    instances_[group->slots[bundle].at(resource)].push_back(
        {own, static_cast<uint32_t>(instance_id_[entry])});
    group->need.items.emplace_back(entry, share);
  }
}

void LocalScheduler::drop_instances(Group* group) {
  auto drop = [this](uint32_t entry) {
    total_[entry] = free_[entry] = 0;
    instance_id_[entry] = -1;
    unused_slots_.push_back(entry);
  };
  for (const auto& slots : group->slots)
    for (const auto& [resource, slot] : slots) {
      auto own = instances_.find(slot);
      if (own == instances_.end()) continue;
      for (const Instance& i : own->second) drop(i.entry);
      instances_.erase(own);
    }
}

std::vector<uint32_t> LocalScheduler::instances(uint32_t worker, const std::string& name) const {
  std::vector<uint32_t> out;
  auto it = workers_.find(worker);
  if (it == workers_.end()) return out;
  for (const auto& [entry, amount] : it->second.held.items)
    if (instance_id_[entry] >= 0 && names_[entry] == name)
      out.push_back(static_cast<uint32_t>(instance_id_[entry]));
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace ray::sched
