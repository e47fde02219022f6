// One decision of the global scheduler; the rules are in scheduler.h.
#include <algorithm>
#include <utility>

#include "libray/base/status.h"
#include "libray/sched_global/scheduler.h"

namespace ray::global {
namespace {

constexpr size_t kMostInputs = 256, kMostHolders = 4096;  // of one demand that are looked at

bool obeys(const Labels& labels, const LabelRule& rule) {
  auto it = labels.find(rule.key);
  bool has = it != labels.end();
  if (has && !rule.values.empty())
    has = std::find(rule.values.begin(), rule.values.end(), it->second) != rule.values.end();
  return has != rule.negate;
}

bool obeys(const Labels& labels, const std::vector<LabelRule>& rules) {
  return std::all_of(rules.begin(), rules.end(), [&](const LabelRule& r) { return obeys(labels, r); });
}

}  // namespace

// How many bytes of its inputs lie where. An input that is not made yet is thought to lie where its task was placed.
void GlobalScheduler::weigh_inputs(const Demand& d) {
  local_.clear();
  input_bytes_ = 0;
  if (!options_.locality) {
    for (const Input& i : d.inputs) input_bytes_ += i.size < 0 ? options_.unknown_size : static_cast<uint64_t>(i.size);
    return;
  }
  for (size_t i = 0; i < std::min(d.inputs.size(), kMostInputs); ++i) {
    const Input& input = d.inputs[i];
    const uint64_t size = input.size < 0 ? options_.unknown_size : static_cast<uint64_t>(input.size);
    input_bytes_ += size;
    for (NodeIndex n : input.at)
      if (local_.size() < kMostHolders) local_.emplace_back(n, size);
    if (!input.at.empty()) continue;
    const Decision* made = decisions_.find(producer_of(input.id));
    if (made && made->outcome == Action::kPlace && view_.find(made->node, made->epoch))
      local_.emplace_back(made->node, size);
  }
  if (local_.size() < 2) return;
  std::sort(local_.begin(), local_.end());
  size_t last = 0;
  for (size_t i = 1; i < local_.size(); ++i) {
    if (local_[i].first == local_[last].first) local_[last].second += local_[i].second;
    else local_[++last] = local_[i];
  }
  local_.resize(last + 1);
}

uint64_t GlobalScheduler::bytes_at(NodeIndex node) const {
  auto it = std::lower_bound(local_.begin(), local_.end(), std::pair<NodeIndex, uint64_t>(node, 0));
  return it != local_.end() && it->first == node ? std::min(it->second, input_bytes_) : 0;
}

GlobalScheduler::Fit GlobalScheduler::fit(const View::Node& n, const Demand& d, bool soft) const {
  bool full = false, held = false;
  for (const Need& need : needs_) {
    const View::Stock* s = n.stock(need.axis);
    if (!s || s->total < need.amount) return Fit::kSmall;
    held |= s->reach() < need.amount;
    full |= s->full;
  }
  if (!obeys(n.labels, d.labels) || (soft && !obeys(n.labels, d.soft_labels))) return Fit::kLabels;
  if (n.draining) return Fit::kDraining;
  if (std::find(d.refused.begin(), d.refused.end(), n.index) != d.refused.end()) return Fit::kRefused;
  if (n.silent) return Fit::kSilent;
  if (held) return Fit::kHeld;
  return full && d.work == Work::kTask ? Fit::kFull : Fit::kFits;
}

// False: it does not fit.
bool GlobalScheduler::consider(const View::Node* n, const Demand& d, bool soft) {
  ++looked_;
  if (!n || fit(*n, d, soft) != Fit::kFits) return false;
  for (const Candidate& c : candidates_)
    if (c.at == n) return true;
  Candidate c;
  c.at = n;
  c.node = n->index;
  c.wait_ns = view_.wait_ns(*n, needs_);
  c.load = view_.load(*n, needs_);
  if (!d.spread && input_bytes_ > 0)
    c.transfer_ns = static_cast<double>(input_bytes_ - bytes_at(n->index)) / view_.bandwidth(*n);
  c.cost_ns = options_.overlap ? std::max(c.wait_ns, c.transfer_ns) : c.wait_ns + c.transfer_ns;
  if (best_ < 0 || c.cost_ns < best_) best_ = c.cost_ns;
  candidates_.push_back(c);
  return true;
}

// From the least loaded on, until none that follows can be as cheap as what was found.
void GlobalScheduler::walk_line(const View::Line& line, const Demand& d, bool soft) {
  uint32_t found = 0;
  for (const View::Key& key : line) {
    if (key.full && d.work == Work::kTask) return;
    if (best_ >= 0 && key.pressure > best_ * (1 + options_.equal) && key.pressure > 0) return;
    if (consider(key.node, d, soft) && ++found == options_.look) return;
  }
}

void GlobalScheduler::walk(const Demand& d, bool soft) {
  if (walk_labelled(d, soft)) return;
  uint32_t axis = 0;
  int from = 0;
  size_t fewest = SIZE_MAX;
  for (const Need& need : needs_) {
    const auto& buckets = view_.axis_index(need.axis);
    const int first = View::bucket_of(need.amount);
    size_t nodes = 0;
    for (auto b = buckets.lower_bound(first); b != buckets.end(); ++b) nodes += b->second.size();
    if (nodes < fewest) fewest = nodes, axis = need.axis, from = first;
  }
  const auto& buckets = view_.axis_index(axis);
  for (auto b = buckets.lower_bound(from); b != buckets.end(); ++b) walk_line(b->second, d, soft);
}

// By a label that few nodes have. False: there is none.
bool GlobalScheduler::walk_labelled(const Demand& d, bool soft) {
  const LabelRule* rarest = nullptr;
  size_t fewest = options_.look_labelled + 1;
  for (const auto* rules : {&d.labels, soft ? &d.soft_labels : nullptr}) {
    if (!rules) continue;
    for (const LabelRule& rule : *rules) {
      if (rule.negate || rule.values.empty()) continue;
      size_t nodes = 0;
      for (const std::string& v : rule.values)
        if (const auto* set = view_.labelled(rule.key, v)) nodes += set->size();
      if (nodes < fewest) fewest = nodes, rarest = &rule;
    }
  }
  if (!rarest) return false;
  for (const std::string& v : rarest->values)
    if (const auto* set = view_.labelled(rarest->key, v))
      for (NodeIndex n : *set) consider(view_.find(n), d, soft);
  return true;
}

void GlobalScheduler::choose_of_all(const Demand& d, bool soft) {
  walk(d, soft);
  if (d.spread) return;
  std::vector<std::pair<NodeIndex, uint64_t>>& most = local_;  // sorted by node; few, or the largest are found
  if (most.size() <= options_.look_holders) {
    for (const auto& [n, bytes] : most) consider(view_.find(n), d, soft);
  } else {
    std::vector<std::pair<NodeIndex, uint64_t>> by_size(most);
    std::partial_sort(by_size.begin(), by_size.begin() + options_.look_holders, by_size.end(),
                      [](const auto& a, const auto& b) { return std::pair(b.second, a.first) < std::pair(a.second, b.first); });
    for (uint32_t i = 0; i < options_.look_holders; ++i) consider(view_.find(by_size[i].first), d, soft);
  }
  if (d.from != kNoNode) consider(view_.find(d.from), d, soft);
}

// Of the candidates, by the rules (2) and (4).
void GlobalScheduler::choose(const Demand& d) {
  const double equal = best_ * (1 + options_.equal);
  const Candidate* from = nullptr;
  double least = 2;
  uint64_t same = 0;
  for (const Candidate& c : candidates_) {
    if (c.node == d.from && !d.spread) from = &c;
    if (c.cost_ns > equal) continue;
    const double rank = c.wait_ns == 0 ? std::min(c.load, 1.0) : 1.0;
    if (rank > least) continue;
    if (rank < least) least = rank, same = 0;
    if (dice() % ++same == 0) chosen_ = &c;  // each of those that are equal is as likely
  }
  rule_ = d.spread ? "the shortest line (SPREAD)" : "the least cost";
  if (!from || chosen_ == from) return;
  const double stay = d.hops > 0 ? options_.stay : 0;
  if (from->cost_ns <= best_ * (1 + stay) + options_.hop_ns) {
    chosen_ = from;
    rule_ = "stays: a move would not gain enough";
  }
}

// True: chosen_ is the place.
bool GlobalScheduler::decide(const Demand& d) {
  candidates_.clear();
  chosen_ = nullptr;
  best_ = -1;
  looked_ = 0;
  run_ns_ = view_.run_ns(d.function, d.size);
  weigh_inputs(d);
  const std::string* missing;
  if (!view_.resolve(d.resources, &needs_, &missing)) return false;
  if (d.hops >= options_.max_hops) {
    if (!consider(view_.find(d.from), d, false)) return false;
    chosen_ = &candidates_[0];
    rule_ = "stays: it was moved as often as it may be";
    return true;
  }
  if (d.affinity != kNoNode) {
    if (consider(view_.find(d.affinity), d, false)) {
      chosen_ = &candidates_[0];
      rule_ = d.soft_affinity ? "the node that it prefers" : "the node that it must run on";
      return true;
    }
    if (!d.soft_affinity) return false;
  }
  if (!d.soft_labels.empty()) choose_of_all(d, true);
  if (candidates_.empty()) choose_of_all(d, false);
  if (candidates_.empty()) return false;
  choose(d);
  return true;
}

// What the nodes have most of, for people.
std::string GlobalScheduler::largest(const Demand& d) const {
  std::string text;
  for (const auto& [name, amount] : d.resources.items()) {
    Amount most = 0;
    NodeIndex at = kNoNode;
    for (const auto& [index, n] : view_.nodes()) {
      if (n.draining) continue;
      for (const View::Stock& s : n.stocks)
        if (s.total > most && view_.name(s.axis) == name) most = s.total, at = index;
    }
    if (most >= amount) continue;
    text += strprintf("%s'%s' of %g (%s)", text.empty() ? "" : ", ", name.c_str(), static_cast<double>(amount) / kUnit,
                      at == kNoNode ? "no node has any"
                                    : strprintf("the most is %g, on node %u", static_cast<double>(most) / kUnit, at).c_str());
  }
  return text;
}

// Why decide() found nothing. It walks over all nodes.
GlobalScheduler::Verdict GlobalScheduler::explain(const Demand& d) const {
  if (view_.nodes().empty()) return {Action::kWait, "no node has said yet what it has"};
  if (d.hops >= options_.max_hops)
    return {Action::kWait, strprintf("it was moved %u times and node %u does not take it: let it begin anew", d.hops, d.from)};
  const std::string needs = "{" + d.resources.to_string() + "}";
  const bool one = d.affinity != kNoNode && !d.soft_affinity;
  if (one && !view_.find(d.affinity))
    return {Action::kInfeasible, strprintf("it must run on node %u, which is %s: a soft affinity would let it run elsewhere",
                                           d.affinity, view_.fenced(d.affinity, 0) ? "dead" : "not known")};
  size_t n[kFits] = {};
  const std::string* missing;
  Needs all;
  const bool known = view_.resolve(d.resources, &all, &missing);
  for (const auto& [index, node] : view_.nodes())
    if (!one || index == d.affinity) ++n[static_cast<size_t>(known ? fit(node, d, false) : Fit::kSmall)];
  auto count = [&](Fit f) { return n[static_cast<size_t>(f)]; };
  std::string text;
  auto add = [&](Fit f, const char* what) {
    if (count(f) > 0) text += strprintf("%s%zu %s", text.empty() ? "" : ", ", count(f), what);
  };
  add(Fit::kFull, "with too much waiting work");
  add(Fit::kHeld, "where actors and groups hold what it needs");
  add(Fit::kSilent, "without a heartbeat for too long");
  add(Fit::kRefused, "that refused it");
  const std::string which = one ? strprintf("node %u", d.affinity) : "no node";
  if (!text.empty())
    return {Action::kWait, strprintf("%s takes %s now: of those that could, %s", which.c_str(), needs.c_str(), text.c_str())};
  add(Fit::kDraining, "that could but take nothing new");
  add(Fit::kLabels, "without the labels that it wants");
  add(Fit::kSmall, "too small");
  const std::string lacking = largest(d);
  std::string would = count(Fit::kDraining) + count(Fit::kLabels) > 0 ? "a further node with these resources"
                                                                      : "a node with " + needs;
  if (!d.labels.empty()) would += " and these labels";
  return {Action::kInfeasible,
          strprintf("%s can run %s: %s%s%s; %s would do", which.c_str(), needs.c_str(), text.c_str(),
                    lacking.empty() ? "" : "; too much is ", lacking.c_str(),
                    one ? "another node with a soft affinity" : would.c_str())};
}

}  // namespace ray::global
