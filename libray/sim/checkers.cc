// See checkers.h.
#include "libray/sim/checkers.h"

#include <algorithm>
#include <utility>

namespace ray::sim {
namespace {

using sched::kUnit;

void add(Amounts* sum, const Resources& r, Amount sign = 1) {
  for (const auto& [name, a] : r.items()) (*sum)[name] += sign * a;
}

bool within(const Resources& need, const Amounts& left) {
  for (const auto& [name, a] : need.items()) {
    auto l = left.find(name);
    if (l == left.end() || l->second < a) return false;
  }
  return true;
}

// What a holder of so much has of each of its units: whole ones, or a share of one.
Amount share(const Ledger::Holder& h) {
  Amount a = h.need.get(kToldApart);
  return a >= kUnit ? kUnit : a;
}

}  // namespace

// ---- resources

void Ledger::granted(uint64_t worker, Holder holder) {
  if (holders_.count(worker)) return complain("a worker was given out that somebody has");
  Holder& h = holders_[worker] = std::move(holder);
  h.granted_at = h.since;
  check(h);
}

void Ledger::began(uint64_t worker, int64_t now) {
  if (auto h = holders_.find(worker); h != holders_.end()) h->second.since = now;
}

void Ledger::blocked(uint64_t worker, bool yes) {
  if (auto h = holders_.find(worker); h != holders_.end()) h->second.blocked = yes;
}

void Ledger::reserved(const Id& group, const std::vector<Resources>& bundles) {
  groups_[group].bundles = bundles;
  check(Holder{});
}

void Ledger::removed(const Id& group) {
  if (auto g = groups_.find(group); g != groups_.end()) g->second.removed = true;
  tidy();
}

bool Ledger::in_group(const Id& group) const {
  return std::any_of(holders_.begin(), holders_.end(), [&](const auto& h) { return h.second.where.group == group; });
}

// A removed group ends with its last worker.
void Ledger::tidy() {
  std::erase_if(groups_, [this](const auto& g) { return g.second.removed && !in_group(g.first); });
}

// CPU that a blocked worker lent and took back may be held twice until leases come back: only who is given more of it
// meanwhile has too much.
void Ledger::check(const Holder& added) {
  Amounts left = total_.items();
  for (const auto& [id, g] : groups_)
    for (const Resources& b : g.bundles) add(&left, b, -1);
  for (const auto& [worker, h] : holders_) {
    if (!h.where.group.is_nil()) continue;
    for (const auto& [name, a] : h.need.items())
      if (name != "CPU" || !h.blocked) left[name] -= a;
  }
  bool outside = added.where.group.is_nil();
  for (const auto& [name, a] : left) {
    if (a >= 0 || (name == "CPU" && (!outside || added.need.get("CPU") == 0))) continue;
    complain("more of " + name + " is held than the node has");
  }
  check_units();
  if (!outside) check_group(added);
}

void Ledger::check_units() {
  std::map<uint32_t, Amount> used;
  for (const auto& [worker, h] : holders_) {
    Amount a = h.need.get(kToldApart);
    if (a != 0 && h.units.size() != static_cast<size_t>((a + kUnit - 1) / kUnit))
      return complain("who holds GPUs was not told the right number of them");
    for (uint32_t unit : h.units) used[unit] += share(h);
  }
  for (const auto& [unit, a] : used)
    if (a > kUnit) complain("GPU " + std::to_string(unit) + " is held twice");
}

void Ledger::check_group(const Holder& added) {
  auto g = groups_.find(added.where.group);
  if (g == groups_.end()) return complain("something was placed in a group that is not there");
  Amounts all;
  std::vector<Amounts> left;
  for (const Resources& b : g->second.bundles) {
    add(&all, b);
    left.push_back(b.items());
  }
  for (const auto& [worker, h] : holders_) {
    if (h.where.group != added.where.group) continue;
    for (const auto& [name, a] : h.need.items()) {
      if (name == "CPU" && h.blocked) continue;
      all[name] -= a;
      if (h.where.bundle >= 0) left[static_cast<size_t>(h.where.bundle)][name] -= a;
    }
  }
  left.push_back(all);
  for (const Amounts& bundle : left)
    for (const auto& [name, a] : bundle)
      if (a < 0 && added.need.get(name) > 0) complain("more of " + name + " is held than its bundle has");
}

// ---- what fits

bool Ledger::fits_for_good(const Resources& need, const Where& where, int64_t now) const {
  Amounts left = total_.items();
  if (!where.group.is_nil()) {
    auto g = groups_.find(where.group);
    if (g == groups_.end() || where.bundle < 0) return false;  // in any bundle: the books do not say in which
    left = g->second.bundles[static_cast<size_t>(where.bundle)].items();
  } else {
    for (const auto& [id, g] : groups_)
      for (const Resources& b : g.bundles) add(&left, b, -1);
  }
  for (const auto& [worker, h] : holders_) {
    if (h.where.group != where.group || !holds_for_good(h, now)) continue;
    if (h.where.bundle != where.bundle && h.where.bundle >= 0) continue;
    add(&left, h.need, -1);
  }
  // Parts of units do not add up: half of two GPUs is no GPU.
  Amount gpus = need.get(kToldApart);
  if (gpus > 0 && left[kToldApart] - gpus < kUnit) {
    for (const auto& [worker, h] : holders_)
      if (holds_for_good(h, now) && !h.units.empty()) return false;
    for (const auto& [id, g] : groups_)
      for (const Resources& b : g.bundles)
        if (b.get(kToldApart) > 0) return false;
  }
  return within(need, left);
}

bool Ledger::fits_all_for_good(const std::vector<Resources>& bundles, int64_t now) const {
  Amounts sum;
  for (const Resources& b : bundles) add(&sum, b);
  if (sum[kToldApart] > 0) return false;  // whether parts of units can be divided like that is not in the books
  Resources all;
  for (const auto& [name, a] : sum)
    if (a > 0) (void)all.add(name, static_cast<double>(a) / kUnit);
  return fits_for_good(all, {}, now);
}

bool Ledger::possible(const Resources& need) const { return within(need, total_.items()); }

size_t Ledger::for_good(int64_t now) const {
  return static_cast<size_t>(std::count_if(holders_.begin(), holders_.end(),
                                           [&](const auto& h) { return holds_for_good(h.second, now); }));
}

bool Ledger::all_wait(int64_t now) const {
  return std::all_of(holders_.begin(), holders_.end(),
                     [&](const auto& h) { return h.second.actor || h.second.blocked || now - h.second.granted_at > kTurn; });
}

// ---- once

void Tasks::terms(uint64_t task, const Terms& t) {
  static_cast<Terms&>(books_[task]) = t;
  if (!t.in_order) return;
  unfinished_[t.handle].insert(t.seq);
  unsent_[t.handle].insert(t.seq);
}

void Tasks::sent(uint64_t task) {
  auto b = books_.find(task);
  if (b == books_.end() || !b->second.in_order) return;
  std::set<uint64_t>& waits = unsent_[b->second.handle];
  if (*waits.begin() != b->second.seq) complain(task, "order", "was sent before a call that was made earlier, and waits");
  waits.erase(b->second.seq);
}

void Tasks::came_back(uint64_t task) {
  auto b = books_.find(task);
  if (b != books_.end() && b->second.in_order) unsent_[b->second.handle].insert(b->second.seq);
}

void Tasks::began(uint64_t task) {
  auto b = books_.find(task);
  if (b == books_.end()) return;  // its client is gone
  Book& book = b->second;
  if (++book.began > 1 + book.retries) complain(task, "again", "began more often than it may");
  if (book.at_cancel > 0) complain(task, "again", "was cancelled after it had begun, and began again");
  if (!book.in_order) return;
  const std::set<uint64_t>& before = unfinished_[book.handle];
  if (!before.empty() && *before.begin() < book.seq)
    complain(task, "order", "(" + std::to_string(book.seq) + " of its handle) began before call " +
                                std::to_string(*before.begin()) + " was through");
}

void Tasks::passed(uint64_t task) {
  auto b = books_.find(task);
  if (b != books_.end() && b->second.in_order) unfinished_[b->second.handle].erase(b->second.seq);
}

void Tasks::cancelled(uint64_t task) {
  auto b = books_.find(task);
  if (b != books_.end()) b->second.at_cancel = b->second.began;
}

void Tasks::ended(uint64_t task, const std::string& how) {
  if (!open_.erase(task)) return complain(task, "once", "ended again (" + how + ")");
  auto b = books_.find(task);
  if (b == books_.end()) return;
  passed(task);
  if (b->second.in_order) unsent_[b->second.handle].erase(b->second.seq);
  const bool kept = b->second.handle == 0 || b->second.retries > 0;  // a call without retries ends with its actor's process
  if (how == "overwritten" || (how == "crashed" && b->second.began == 0 && kept))
    complain(task, "unbegun", "fails (" + how + ") and began " + std::to_string(b->second.began) + " times");
  books_.erase(b);
}

// ---- starts

void Waits::look(int64_t now, const std::vector<Request>& waiting) {
  ++looks_;
  for (const Request& q : waiting) {
    auto [it, fresh] = seen_.try_emplace(q.name, Seen{now, q.change, looks_});
    Seen& s = it->second;
    if (!q.could || s.change != q.change) s.since = now;
    s.change = q.change;
    s.look = looks_;
    double part = static_cast<double>(now - s.since) / static_cast<double>(q.bound);
    closest_ = std::max(closest_, part);
    if (part <= 1 || !broken_->empty()) continue;
    *broken_ = "starts: " + q.name + " could have been placed for " + std::to_string((now - s.since) / 1'000'000) +
               " ms and has not";
  }
  std::erase_if(seen_, [this](const auto& s) { return s.second.look != looks_; });
}

}  // namespace ray::sim
