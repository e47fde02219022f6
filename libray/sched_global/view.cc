// See view.h.
#include "libray/sched_global/view.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "libray/base/status.h"

namespace ray::global {
namespace {

constexpr uint32_t kAll = 0;                  // the axis without a name
constexpr Amount kMost = Amount{1} << 61;     // sums end here

Amount sum(Amount a, Amount b) { return std::clamp(a + b, Amount{0}, kMost); }

uint32_t dice_of(uint64_t seed, NodeIndex node) {  // splitmix64
  uint64_t z = seed * 0x9E3779B97F4A7C15u + node;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<uint32_t>(z ^ (z >> 31));
}

}  // namespace

double View::Stock::load(Amount more) const {
  return static_cast<double>(busy() + queued) / static_cast<double>(total) +
         static_cast<double>(placed + more) / static_cast<double>(total);
}

const View::Stock* View::Node::stock(uint32_t axis) const {
  for (const Stock& s : stocks)
    if (s.axis == axis) return &s;
  return nullptr;
}

int View::bucket_of(Amount amount) {
  return amount <= 0 ? -1 : std::bit_width(static_cast<uint64_t>(amount)) - 1;
}

// ---- events

bool View::fenced(NodeIndex node, uint32_t epoch) const {
  auto f = fences_.find(node);
  if (f != fences_.end()) return epoch <= f->second;
  return node < floor_ && !nodes_.count(node);
}

bool View::heartbeat(const Heartbeat& h, int64_t now, bool* better) {
  *better = false;
  if (h.node == kNoNode || fenced(h.node, h.epoch)) return false;
  auto it = nodes_.find(h.node);
  if (it != nodes_.end()) {
    const Node& n = it->second;
    if (std::tie(h.epoch, h.version) <= std::tie(n.epoch, n.version)) return false;
    if (h.epoch > n.epoch) {
      erase(it);
      it = nodes_.end();
    }
  }
  if (it == nodes_.end()) {
    it = nodes_.emplace(h.node, Node{}).first;
    it->second.index = h.node;
    it->second.epoch = h.epoch;
    it->second.dice = dice_of(options_.seed, h.node);
    it->second.heard_at = now;
    ++generation_;
  }
  Node* n = &it->second;
  const bool was_usable = n->usable();
  unindex(n);
  heard_.erase({n->heard_at, n->index});
  heard_.insert({n->heard_at = now, n->index});
  n->version = h.version;
  n->silent = false;
  if (n->draining != h.draining) ++generation_;
  n->draining = h.draining;
  n->running = h.running;
  n->waiting = h.waiting;
  fill(n, h);
  learn(n, h);
  if (n->labels != h.labels) relabel(n, h.labels);
  for (const Heartbeat::Seen& s : h.seen)
    if (s.instance == options_.instance) drop_placed(n, s.seq);
  index(n);
  if (!n->usable()) return true;
  *better = !was_usable;
  for (const Stock& s : n->stocks) *better |= s.axis != kAll && !s.full;
  return true;
}

// The stocks from the heartbeat; what was placed stays counted.
void View::fill(Node* n, const Heartbeat& h) {
  for (size_t i = 0; i < n->stocks.size();) {
    const uint32_t a = n->stocks[i].axis;
    if (a != kAll && h.total.get(axes_[a].name) == 0) {
      n->stocks.erase(n->stocks.begin() + static_cast<ptrdiff_t>(i));
      release(a);
      ++generation_;
    } else {
      ++i;
    }
  }
  if (n->stocks.empty()) {
    Stock all;
    all.total = all.available = kUnit;
    n->stocks.push_back(all);
  }
  for (const auto& [name, total] : h.total.items()) {
    auto known = by_name_.find(name);
    Stock* s = known == by_name_.end() ? nullptr : stock(n, known->second);
    if (!s) {
      Stock fresh;
      fresh.axis = axis(name);
      ++axes_[fresh.axis].users;
      for (const Placed& p : n->placed)
        for (const Need& need : p.needs)
          if (need.axis == fresh.axis) {
            fresh.placed = sum(fresh.placed, need.amount);
            if (p.for_good) fresh.placed_held = sum(fresh.placed_held, need.amount);
          }
      n->stocks.push_back(fresh);
      s = &n->stocks.back();
    }
    if (s->total != total) ++generation_;
    s->total = total;
    s->available = std::min(h.available.get(name), total);
    s->held = std::min(h.held.get(name), total);
    s->queued = h.queued.get(name);
  }
}

void View::learn(Node* n, const Heartbeat& h) {
  for (const Heartbeat::Ran& r : h.ran) {
    if (r.count == 0 || r.ns < 0) continue;
    const double mean = static_cast<double>(r.ns) / r.count;
    functions_.add(options_.alpha, r.function, mean, r.count);
    n->run.add(options_.alpha, mean, r.count);
    run_.add(options_.alpha, mean, r.count);
  }
  if (h.moved_bytes > 0 && h.moved_ns > 0) {
    const double rate = static_cast<double>(h.moved_bytes) / static_cast<double>(h.moved_ns);
    n->bandwidth.add(options_.alpha, rate);
    bandwidth_.add(options_.alpha, rate);
  }
}

void View::relabel(Node* n, const Labels& labels) {
  for (const auto& label : n->labels) {
    auto it = by_label_.find(label);
    it->second.erase(n->index);
    if (it->second.empty()) by_label_.erase(it);
  }
  n->labels = labels;
  for (const auto& label : n->labels) by_label_[label].insert(n->index);
  ++generation_;
}

bool View::dead(NodeIndex node, uint32_t epoch) {
  if (node == kNoNode) return false;
  uint32_t& fence = fences_.try_emplace(node, epoch).first->second;
  fence = std::max(fence, epoch);
  while (fences_.size() > options_.max_fences) {  // indexes rise: the oldest node is forgotten, and stays dead
    floor_ = std::max(floor_, fences_.begin()->first + 1);
    fences_.erase(fences_.begin());
  }
  auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.epoch > epoch) return false;
  erase(it);
  return true;
}

void View::erase(std::map<NodeIndex, Node>::iterator it) {
  Node* n = &it->second;
  unindex(n);
  relabel(n, {});
  heard_.erase({n->heard_at, n->index});
  for (const Stock& s : n->stocks)
    if (s.axis != kAll) release(s.axis);
  nodes_.erase(it);
  ++generation_;
}

void View::tick(int64_t now) {
  while (!heard_.empty() && heard_.begin()->first + options_.silent_ns <= now) {
    Node* n = &nodes_.at(heard_.begin()->second);
    heard_.erase(heard_.begin());
    unindex(n);
    n->silent = true;
  }
  while (!outstanding_.empty() && outstanding_.front().at + options_.lost_ns <= now) {
    const Outstanding o = outstanding_.front();
    outstanding_.pop_front();
    auto it = nodes_.find(o.node);
    if (it == nodes_.end() || it->second.epoch != o.epoch || it->second.placed.empty()) continue;
    if (it->second.placed.front().seq > o.seq) continue;
    unindex(&it->second);
    drop_placed(&it->second, o.seq);
    index(&it->second);
  }
}

int64_t View::deadline() const {
  int64_t at = INT64_MAX;
  if (!heard_.empty()) at = std::min(at, heard_.begin()->first + options_.silent_ns);
  if (!outstanding_.empty()) at = std::min(at, outstanding_.front().at + options_.lost_ns);
  return at;
}

// ---- what was placed

void View::count(Node* n, const Placed& p, Amount sign) {
  for (const Need& need : p.needs)
    if (Stock* s = stock(n, need.axis)) {
      s->placed = sum(s->placed, sign * need.amount);
      if (p.for_good) s->placed_held = sum(s->placed_held, sign * need.amount);
    }
  if (p.for_good) return;
  n->placed_ns += static_cast<double>(sign) * p.run_ns;
  n->placed_tasks += static_cast<uint32_t>(sign);
}

uint64_t View::place(const Node& node, const Needs& needs, double run_ns, bool for_good, int64_t now) {
  Node* n = const_cast<Node*>(&node);
  n->placed.push_back({next_seq_, run_ns, for_good, needs});
  outstanding_.push_back({now, n->index, n->epoch, next_seq_});
  count(n, n->placed.back(), +1);
  index(n);
  return next_seq_++;
}

void View::drop_placed(Node* n, uint64_t up_to) {
  while (!n->placed.empty() && n->placed.front().seq <= up_to) {
    count(n, n->placed.front(), -1);
    n->placed.pop_front();
  }
  if (n->placed_tasks == 0) n->placed_ns = 0;  // no rest of rounding
}

void View::unplace(NodeIndex node, uint64_t seq) {
  auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  Node* n = &it->second;
  for (auto p = n->placed.begin(); p != n->placed.end(); ++p)
    if (p->seq == seq) {
      count(n, *p, -1);
      n->placed.erase(p);
      index(n);
      return;
    }
}

// ---- the index

double View::pressure(const Node& n, const Stock& s) const {
  if (s.axis == kAll) return -1 + 1e-6 * (n.running + n.waiting + static_cast<double>(n.placed.size()));
  const double over = s.load() - 1;
  return over <= 0 ? over : over * line_ns(n);
}

void View::index(Node* n) {
  if (n->usable())
    for (Stock& s : n->stocks) index(n, &s);
}

void View::index(Node* n, Stock* s) {
  const double p = pressure(*n, *s);
  if (p >= options_.full_ns) s->full = true;
  if (p <= options_.room_ns) s->full = false;
  const Key key{s->full, p, n->dice, n};
  const int bucket = bucket_of(s->reach());
  Axis& axis = axes_[s->axis];
  if (s->indexed && bucket == s->bucket) {
    if (key.pressure == s->key.pressure && key.full == s->key.full) return;
    Line& line = axis.buckets[bucket];
    auto handle = line.extract(s->key);
    handle.value() = s->key = key;
    line.insert(std::move(handle));
    return;
  }
  unindex(s);
  if (bucket < 0) return;  // all is held: nobody can have any
  s->indexed = true;
  s->bucket = bucket;
  s->key = key;
  axis.buckets[bucket].insert(key);
}

void View::unindex(Node* n) {
  for (Stock& s : n->stocks) unindex(&s);
}

void View::unindex(Stock* s) {
  if (!s->indexed) return;
  auto bucket = axes_[s->axis].buckets.find(s->bucket);
  bucket->second.erase(s->key);
  if (bucket->second.empty()) axes_[s->axis].buckets.erase(bucket);
  s->indexed = false;
}

uint32_t View::axis(const std::string& name) {
  auto it = by_name_.find(name);
  if (it != by_name_.end()) return it->second;
  uint32_t a;
  if (unused_.empty()) {
    a = static_cast<uint32_t>(axes_.size());
    axes_.emplace_back();
  } else {
    a = unused_.back();
    unused_.pop_back();
  }
  axes_[a].name = name;
  by_name_.emplace(name, a);
  return a;
}

// The last node that has it is gone. What was placed may still speak of the number: it goes first.
void View::release(uint32_t a) {
  if (--axes_[a].users > 0) return;
  for (auto& [index, n] : nodes_)
    for (Placed& p : n.placed) std::erase_if(p.needs, [a](const Need& need) { return need.axis == a; });
  by_name_.erase(axes_[a].name);
  axes_[a] = Axis{};
  unused_.push_back(a);
}

// ---- questions

const View::Node* View::find(NodeIndex node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? nullptr : &it->second;
}

const View::Node* View::find(NodeIndex node, uint32_t epoch) const {
  const Node* n = find(node);
  return n && n->epoch == epoch ? n : nullptr;
}

bool View::resolve(const Resources& resources, Needs* out, const std::string** missing) const {
  out->clear();
  for (const auto& [name, amount] : resources.items()) {
    auto it = by_name_.find(name);
    if (it == by_name_.end()) {
      *missing = &name;
      return false;
    }
    out->push_back({it->second, amount});
  }
  return true;
}

const std::set<NodeIndex>* View::labelled(const std::string& key, const std::string& value) const {
  auto it = by_label_.find({key, value});
  return it == by_label_.end() ? nullptr : &it->second;
}

double View::run_ns(uint64_t function, SizeClass size) const {
  const Average* known = functions_.find(function);
  if (known) return known->value();
  switch (size) {
    case SizeClass::kShort: return options_.short_ns;
    case SizeClass::kLong: return options_.long_ns;
    case SizeClass::kUnknown: break;
  }
  return run_.or_else(options_.run_ns);
}

double View::line_ns(const Node& n) const {
  const double mean = n.run.or_else(run_.or_else(options_.run_ns));
  const double in_line = static_cast<double>(n.waiting) + n.placed_tasks;
  return in_line == 0 ? mean : (n.waiting * mean + n.placed_ns) / in_line;
}

double View::wait_ns(const Node& n, const Needs& needs) const {
  double most = 0;
  for (const Need& need : needs)
    if (const Stock* s = n.stock(need.axis)) most = std::max(most, s->load(need.amount) - 1);
  return most <= 1e-9 ? 0 : most * line_ns(n);
}

double View::load(const Node& n, const Needs& needs) const {
  double most = 0;
  for (const Need& need : needs)
    if (const Stock* s = n.stock(need.axis)) most = std::max(most, s->load(need.amount));
  return needs.empty() ? 1e-6 * (n.running + n.waiting + static_cast<double>(n.placed.size())) : most;
}

double View::bandwidth(const Node& n) const { return n.bandwidth.or_else(bandwidth()); }

std::string View::check() const {
  for (const auto& [index, n] : nodes_) {
    if (fenced(index, n.epoch)) return strprintf("node %u of epoch %u is known and dead", index, n.epoch);
    for (const Stock& s : n.stocks) {
      Amount placed = 0, held = 0;
      for (const Placed& p : n.placed)
        for (const Need& need : p.needs)
          if (need.axis == s.axis) placed += need.amount, held += p.for_good ? need.amount : 0;
      if (placed != s.placed || held != s.placed_held)
        return strprintf("node %u: what was placed of '%s' is counted wrongly", index, name(s.axis).c_str());
      if (s.indexed != (n.usable() && s.reach() > 0))
        return strprintf("node %u: '%s' is %s the index", index, name(s.axis).c_str(), s.indexed ? "in" : "not in");
      if (s.indexed && !axes_[s.axis].buckets.at(s.bucket).count(s.key))
        return strprintf("node %u: '%s' is lost in the index", index, name(s.axis).c_str());
    }
  }
  if (fences_.size() > options_.max_fences) return "too many fences";
  return "";
}

}  // namespace ray::global
