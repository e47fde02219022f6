// See resource_table.h.
#include "libray/sched/resource_table.h"

#include <algorithm>

namespace ray::sched {
namespace {

constexpr Amount kMaxInstances = 1024;  // of more units than that none is told from another

constexpr uint32_t bit(Back back) { return 1u << static_cast<uint32_t>(back); }

}  // namespace

Amount Need::cpu() const {
  for (const auto& [entry, a] : items)
    if (entry == cpu_entry) return a;
  return 0;
}

Amount View::at(uint32_t entry) const {
  const ResourceTable::Entry& e = table_->entries_[entry];
  Amount sum = all_ ? e.total : e.free;
  if (backs_)
    for (size_t i = 0; i < ResourceTable::kBacks; ++i)
      if (backs_ >> i & 1) sum += e.held[i];
  if (changes_.empty()) return sum;
  auto c = changes_.find(entry);
  return c == changes_.end() ? sum : sum + c->second;
}

void View::take(const Need& need) {
  for (const auto& [entry, a] : need.items) changes_[entry] -= a;
}

void View::give(const Holding& held) {
  for (const auto& [entry, a] : held.need.items) changes_[entry] += a;
  if (held.lent) changes_[held.need.cpu_entry] -= held.lent;
}

View View::if_all_are_reclaimed() const {
  View all = *this;
  all.backs_ |= bit(Back::kLeased);
  return all;
}

// ---- names

ResourceTable::ResourceTable(const Resources& total, const std::vector<std::string>& instanced) {
  add("CPU");
  for (const auto& [name, amount] : total.items()) {
    int32_t known = find(name);
    Entry& e = entries_[known >= 0 ? static_cast<uint32_t>(known) : add(name)];
    e.total = e.free = amount;
  }
  own_ = entries_.size();
  for (const std::string& name : instanced) make_instances(name);
}

// The node's own resources are few, and nothing else gets a name here: what asks for others can never run.
int32_t ResourceTable::find(const std::string& name) const {
  const size_t last = own_ ? own_ : entries_.size();
  for (uint32_t i = 0; i < last; ++i)
    if (entries_[i].name == name) return static_cast<int32_t>(i);
  return -1;
}

uint32_t ResourceTable::add(const std::string& name) {
  uint32_t entry = static_cast<uint32_t>(entries_.size());
  if (unused_.empty()) entries_.emplace_back();
  else entry = unused_.back(), unused_.pop_back();
  entries_[entry].name = name;
  return entry;
}

Need ResourceTable::need_of(const Resources& resources, std::string* never) const {
  Need n;
  for (const auto& [name, amount] : resources.items()) {
    int32_t entry = find(name);
    if (entry >= 0)
      n.items.emplace_back(static_cast<uint32_t>(entry), amount);
    else if (never->empty())
      *never = strprintf("needs {%s}, but the node has no resource '%s'", resources.to_string().c_str(), name.c_str());
  }
  return n;
}

uint32_t ResourceTable::processors() const {
  return std::max<uint32_t>(1, static_cast<uint32_t>((entries_[kCpu].total + kUnit - 1) / kUnit));
}

// ---- instances

void ResourceTable::make_instances(const std::string& name) {
  const int32_t known = find(name);
  if (known < 0) return;
  const uint32_t resource = static_cast<uint32_t>(known);
  const Amount total = entries_[resource].total;
  if (total == 0 || total > kMaxInstances * kUnit) return;
  for (Amount left = total; left > 0; left -= kUnit) {
    const uint32_t entry = add(name);
    Entry& e = entries_[entry];
    e.total = e.free = std::min(left, kUnit);
    e.instance = static_cast<int32_t>(entries_[resource].instances.size());
    entries_[resource].instances.push_back(entry);
  }
}

// Chooses instances and adds them to `out`. False: as many are not to be had, although the sum of
// what is free may be larger.
bool ResourceTable::pick(uint32_t resource, Amount amount, const View& free, Need* out) const {
  Amount whole = amount - amount % kUnit, part = amount % kUnit;
  uint32_t shared = 0;  // for the part: the fullest that has room
  Amount room = 0;
  for (uint32_t entry : entries_[resource].instances) {
    const Amount left = free.at(entry);
    if (whole > 0 && left >= kUnit) {
      if (out) out->items.emplace_back(entry, kUnit);
      whole -= kUnit;
    } else if (part > 0 && left >= part && (!shared || left < room)) {
      shared = entry;
      room = left;
    }
  }
  if (whole > 0 || (part > 0 && !shared)) return false;
  if (out && shared) out->items.emplace_back(shared, part);
  return true;
}

Need ResourceTable::with_instances(const Need& need, const View& free) const {
  Need exact = need;
  for (const auto& [entry, amount] : need.items)
    if (has_instances(entry)) (void)pick(entry, amount, free, &exact);
  return exact;
}

std::vector<uint32_t> ResourceTable::instances(const Holding& held, const std::string& name) const {
  std::vector<uint32_t> out;
  for (const auto& [entry, amount] : held.need.items)
    if (is_instance(entry) && entries_[entry].name == name)
      out.push_back(static_cast<uint32_t>(entries_[entry].instance));
  std::sort(out.begin(), out.end());
  return out;
}

// ---- what fits

View ResourceTable::soon() const { return View(this, bit(Back::kSoon) | bit(Back::kEnding)); }
View ResourceTable::later() const {
  return View(this, bit(Back::kLeased) | bit(Back::kSoon) | bit(Back::kLate) | bit(Back::kEnding));
}

bool ResourceTable::enough(uint32_t entry, Amount amount, const View& free) const {
  return free.at(entry) >= amount && (!has_instances(entry) || pick(entry, amount, free, nullptr));
}

bool ResourceTable::fits(const Need& need, const View& free) const {
  return std::all_of(need.items.begin(), need.items.end(),
                     [&](const auto& item) { return enough(item.first, item.second, free); });
}

bool ResourceTable::fits(const std::vector<Bundle>& bundles, View free) const {
  for (const Bundle& bundle : bundles) {
    if (!fits(bundle.need, free)) return false;
    free.take(with_instances(bundle.need, free));
  }
  return true;
}

// ---- who holds what

void ResourceTable::count(const Holding& h, Amount sign) {
  const size_t back = static_cast<size_t>(h.back);
  for (const auto& [entry, a] : h.need.items) {
    entries_[entry].held[back] += sign * a;
    entries_[entry].free -= sign * a;
  }
  entries_[h.need.cpu_entry].held[back] -= sign * h.lent;
  entries_[h.need.cpu_entry].free += sign * h.lent;
}

void ResourceTable::hold(Holding* h, const Need& need, Back back) {
  *h = {need, 0, back};
  count(*h, +1);
}

void ResourceTable::drop(Holding* h) {
  count(*h, -1);
  *h = Holding{};
}

void ResourceTable::lend(Holding* h, bool yes) {
  count(*h, -1);
  h->lent = yes ? h->need.cpu() : 0;
  count(*h, +1);
}

void ResourceTable::comes_back(Holding* h, Back back) {
  count(*h, -1);
  h->back = back;
  count(*h, +1);
}

void ResourceTable::set_aside(Need need) {
  for (const auto& [entry, a] : need.items) entries_[entry].free -= a;
  aside_.push_back(std::move(need));
}

void ResourceTable::restore() {
  for (const Need& need : aside_)
    for (const auto& [entry, a] : need.items) entries_[entry].free += a;
  aside_.clear();
}

// ---- bundles

void ResourceTable::reserve(Bundle* bundle) {
  bundle->taken = with_instances(bundle->need, now());
  for (const auto& [entry, a] : bundle->taken.items) entries_[entry].free -= a;
  for (const auto& [resource, a] : bundle->need.items) {
    const uint32_t slot = add(std::string(name(resource)));
    bundle->slots[resource] = slot;
    entries_[slot].total = entries_[slot].free = a;
  }
  for (const auto& [entry, share] : bundle->taken.items) {
    if (!is_instance(entry)) continue;
    const uint32_t slot = bundle->slots.at(static_cast<uint32_t>(find(name(entry))));
    const uint32_t own = add(std::string(name(entry)));
    entries_[own].instance = entries_[entry].instance;
    entries_[own].total = entries_[own].free = share;
    entries_[slot].instances.push_back(own);
  }
}

void ResourceTable::drop_entry(uint32_t entry) {
  entries_[entry] = Entry{};
  unused_.push_back(entry);
}

void ResourceTable::give_back(Bundle* bundle) {
  for (const auto& [entry, a] : bundle->taken.items) entries_[entry].free += a;
  bundle->taken = Need{};
  for (const auto& [resource, slot] : bundle->slots) {
    for (uint32_t own : entries_[slot].instances) drop_entry(own);
    drop_entry(slot);
  }
  bundle->slots.clear();
}

bool ResourceTable::in_bundle(const Bundle& bundle, const Need& need, Need* out) const {
  for (const auto& [entry, a] : need.items) {
    auto slot = bundle.slots.find(entry);
    if (slot == bundle.slots.end()) return false;
    out->items.emplace_back(slot->second, a);
    if (entry == kCpu) out->cpu_entry = slot->second;
  }
  return true;
}

// ---- invariants

std::string ResourceTable::check(const std::vector<const Holding*>& held,
                                 const std::vector<const Bundle*>& reserved) const {
  if (!aside_.empty()) return "something is set aside and no round is on";
  std::vector<Entry> sum(entries_.size());
  std::vector<bool> lendable(entries_.size(), false);
  lendable[kCpu] = true;
  for (size_t i = 0; i < entries_.size(); ++i) sum[i].free = entries_[i].total;
  for (const Holding* h : held) {
    if (h->lent > h->need.cpu()) return "a worker lends more than it holds";
    for (const auto& [entry, a] : h->need.items) sum[entry].held[static_cast<size_t>(h->back)] += a, sum[entry].free -= a;
    sum[h->need.cpu_entry].held[static_cast<size_t>(h->back)] -= h->lent;
    sum[h->need.cpu_entry].free += h->lent;
  }
  for (const Bundle* b : reserved) {
    for (const auto& [entry, a] : b->taken.items) sum[entry].free -= a;
    if (auto cpu = b->slots.find(kCpu); cpu != b->slots.end()) lendable[cpu->second] = true;
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (sum[i].free != entries_[i].free) return "free amount of '" + entries_[i].name + "' is wrong";
    if (sum[i].held != entries_[i].held) return "what comes back of '" + entries_[i].name + "' is wrong";
    if (!lendable[i] && entries_[i].free < 0) return "'" + entries_[i].name + "' is oversubscribed";
  }
  return "";
}

}  // namespace ray::sched
