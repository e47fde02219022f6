// See leases.h.
#include "libray/sched/leases.h"

#include <algorithm>

#include "libray/sched/foreign.h"

namespace ray::sched {
namespace {

bool is_of(const Lease& l, uint32_t client, uint32_t shape) { return l.client == client && l.shape == shape; }

}  // namespace

// Entries that its end would give something of. Instances go with their resource.
std::vector<uint32_t> Leases::gives(const Lease& l) const {
  std::vector<uint32_t> out;
  for (const auto& [entry, amount] : l.held->need.items)
    if (!table_->is_instance(entry) && (entry != l.held->need.cpu_entry || amount > l.held->lent)) out.push_back(entry);
  return out;
}

Leases::ByTime* Leases::list_of(const Lease& l) {
  switch (l.back()) {
    case Back::kSoon: return &soon_;
    case Back::kLate: return &late_;
    case Back::kKept: return &kept_;
    default: return nullptr;
  }
}

void Leases::set_askable(const Lease& l, bool yes) {
  auto of = askable_.try_emplace({l.client, l.shape}).first;
  if (!of->second.empty()) oldest_.erase(*of->second.begin());
  if (yes) of->second.insert({l.granted_at, l.id});
  else of->second.erase({l.granted_at, l.id});
  if (of->second.empty()) askable_.erase(of);
  else oldest_.insert(*of->second.begin());
}

void Leases::list(const Lease& l) {
  if (!l.waits && l.back() != Back::kKept) ++may_return_;
  if (ByTime* asked = list_of(l)) return void(asked->insert({l.reclaimed_at, l.id}));
  if (!l.waits) set_askable(l, true);
  order_.add(l.client, l.shape, {l.granted_at, l.id}, gives(l));
}

void Leases::unlist(const Lease& l) {
  if (!l.waits && l.back() != Back::kKept) --may_return_;
  if (ByTime* asked = list_of(l)) return void(asked->erase({l.reclaimed_at, l.id}));
  if (!l.waits) set_askable(l, false);
  order_.remove(l.client, l.shape, {l.granted_at, l.id}, gives(l));
}

Lease& Leases::grant(uint32_t client, uint32_t shape, uint32_t worker, uint32_t level, Holding* held, int64_t now) {
  // Around once, in weeks: 0 is none.
  while (next_ == 0 || next_ >= kForeignLease || leases_.count(next_)) next_ = next_ >= kForeignLease ? 1 : next_ + 1;
  Lease& l = leases_[next_];
  l = {next_++, client, shape, worker, level, now, 0, false, false, held};
  of_client_[client].insert(l.id);
  list(l);
  return l;
}

Lease Leases::end(uint32_t id) {
  auto it = leases_.find(id);
  Lease l = it->second;
  unlist(l);
  leases_.erase(it);
  auto of = of_client_.find(l.client);
  of->second.erase(id);
  if (of->second.empty()) of_client_.erase(of);
  return l;
}

void Leases::waits(uint32_t id, bool yes) {
  Lease& l = leases_.at(id);
  unlist(l);
  l.waits = yes;
  table_->lend(l.held, yes);
  list(l);
}

void Leases::reclaim(uint32_t id, int64_t now) {
  Lease& l = leases_.at(id);
  unlist(l);
  l.reclaiming = true;
  l.reclaimed_at = now;
  table_->comes_back(l.held, Back::kSoon);
  list(l);
}

void Leases::begin_round(int64_t now) {
  while (!soon_.empty() && soon_.begin()->first + kComingNs <= now) {
    const Lease& l = leases_.at(soon_.begin()->second);
    unlist(l);
    table_->comes_back(l.held, Back::kLate);
    list(l);
  }
}

bool Leases::keep_since(int64_t asked_at) {
  bool any = false;
  for (ByTime* asked : {&soon_, &late_})
    while (!asked->empty() && asked->begin()->first <= asked_at) {
      const Lease& l = leases_.at(asked->begin()->second);
      unlist(l);
      table_->comes_back(l.held, Back::kKept);
      list(l);
      any = true;
    }
  return any;
}

const Lease* Leases::find(uint32_t id) const {
  auto it = leases_.find(id);
  return it == leases_.end() ? nullptr : &it->second;
}

const std::set<uint32_t>& Leases::of(uint32_t client) const {
  static const std::set<uint32_t> kNone;
  auto it = of_client_.find(client);
  return it == of_client_.end() ? kNone : it->second;
}

int64_t Leases::next_late() const { return soon_.empty() ? 0 : soon_.begin()->first + kComingNs; }

const Lease* Leases::expected(uint32_t client, uint32_t shape) const {
  for (const auto& [at, id] : soon_)
    if (const Lease& l = leases_.at(id); !l.waits && !is_of(l, client, shape)) return &l;
  return nullptr;
}

const Lease* Leases::oldest(uint32_t client, uint32_t shape, int64_t granted_by) const {
  for (auto it = oldest_.begin(); it != oldest_.end() && it->first <= granted_by; ++it)  // the second at the latest
    if (const Lease& l = leases_.at(it->second); !is_of(l, client, shape)) return &l;
  return nullptr;
}

std::vector<const Lease*> Leases::overdue(int64_t asked_by) const {
  std::vector<const Lease*> out;
  for (const ByTime* asked : {&soon_, &late_, &kept_})
    for (auto it = asked->begin(); it != asked->end() && it->first <= asked_by; ++it) out.push_back(&leases_.at(it->second));
  return out;
}

std::string Leases::check() const {
  uint32_t may_return = 0, asked = 0, askable = 0;
  std::map<uint32_t, std::set<uint32_t>> of;
  for (const auto& [id, l] : leases_) {
    of[l.client].insert(id);
    if (l.reclaiming != (l.back() != Back::kLeased)) return "a lease that was asked back is not counted so";
    if (l.back() == Back::kNever || l.back() == Back::kEnding) return "a lease holds for good";
    may_return += !l.waits && l.back() != Back::kKept;
    asked += l.reclaiming;
    askable += !l.reclaiming && !l.waits;
    if (l.waits ? l.held->lent != l.held->need.cpu() : l.held->lent != 0) return "who waits has not lent its CPU";
  }
  if (of != of_client_) return "a client's set of leases is wrong";
  if (may_return != may_return_) return "the count of leases that may return is wrong";
  if (asked != soon_.size() + late_.size() + kept_.size()) return "a lease that was asked back stands in no list, or in two";
  ByTime oldest;
  size_t listed = 0;
  for (const auto& [of_shape, leases] : askable_) listed += leases.size(), oldest.insert(*leases.begin());
  if (askable != listed || oldest != oldest_) return "the list of leases that can be asked back is wrong";
  return "";
}

}  // namespace ray::sched
