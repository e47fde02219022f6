// The global scheduler's events, its answers and what waits; see scheduler.h.
#include "libray/sched_global/scheduler.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "libray/base/status.h"

namespace ray::global {
namespace {

constexpr uint64_t kGamma = 0x9E3779B97F4A7C15u;

void append(const std::vector<LabelRule>& rules, std::string* out) {
  for (const LabelRule& r : rules) {
    *out += strprintf("%zu:%s%c", r.key.size(), r.key.c_str(), r.negate ? '!' : '=');
    for (const std::string& v : r.values) *out += strprintf("%zu:%s,", v.size(), v.c_str());
  }
  *out += '|';
}

// Equal for demands of which either all have a place or none.
std::string kind_of(const Demand& d, uint32_t max_hops) {
  std::string s = d.resources.to_string() + '|';
  append(d.labels, &s);
  if (d.affinity != kNoNode && !d.soft_affinity) s += strprintf("on %u", d.affinity);
  s += d.work == Work::kActor ? "actor" : "task";
  for (NodeIndex n : d.refused) s += strprintf(" not %u", n);
  if (d.hops >= max_hops) s += strprintf(" at %u", d.from);
  return s;
}

}  // namespace

GlobalScheduler::GlobalScheduler(const Options& options)
    : options_(options), view_(options.view), groups_(options.groups, &view_), decisions_(std::max<size_t>(options.remember, 1)),
      dice_(options.view.seed) {}

uint64_t GlobalScheduler::dice() {  // splitmix64
  uint64_t z = dice_ += kGamma;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// ---- events

void GlobalScheduler::heartbeat(const Heartbeat& h, int64_t now, Actions* out) {
  bool better;
  if (!view_.heartbeat(h, now, &better)) return;
  changed_ |= better;
  groups_.changed(now, out);
  tick(now, out);
}

void GlobalScheduler::node_dead(NodeIndex node, uint32_t epoch, int64_t now, Actions* out) {
  view_.dead(node, epoch);
  changed_ = true;  // what waited for it may be infeasible
  for (auto line = lines_.begin(); line != lines_.end();) {
    std::vector<TaskId> gone;  // its askers died with it
    for (const auto& [place, w] : line->second.demands)
      if (w.demand.from == node) gone.push_back(w.demand.id);
    ++line;  // the line may go with its last demand
    for (const TaskId& id : gone) withdraw(id);
  }
  groups_.node_dead(node, epoch, now, out);
  tick(now, out);
}

void GlobalScheduler::demand(const Demand& d, int64_t now, Actions* out) {
  view_.tick(now);
  if (answer_again(d, out)) return;
  if (ask_again(d, now, out)) return;
  // Whoever waits for the same goes first.
  const bool behind = !lines_.empty() && lines_.count(kind_of(d, options_.max_hops));
  if (!behind && decide(d)) place(d, now, out);
  else keep(d, now, out);
}

void GlobalScheduler::withdraw(const TaskId& id) {
  auto it = waiting_.find(id);
  if (it != waiting_.end()) forget(it);
}

void GlobalScheduler::tick(int64_t now, Actions* out) {
  view_.tick(now);
  while (!asked_.empty() && asked_.begin()->first + options_.forget_ns <= now) withdraw(TaskId(asked_.begin()->second));
  if ((changed_ || to_serve_ > 0) && now >= served_at_ + options_.serve_ns) serve(now, out);
  groups_.tick(now, out);
}

int64_t GlobalScheduler::deadline() const {
  int64_t at = std::min(view_.deadline(), groups_.deadline());
  if (!asked_.empty()) at = std::min(at, asked_.begin()->first + options_.forget_ns);
  if ((changed_ || to_serve_ > 0) && !lines_.empty()) at = std::min(at, served_at_ + options_.serve_ns);
  return at;
}

// ---- answers

// Whether what was placed there can have what it needs; if not, whoever asks again means it.
bool GlobalScheduler::still_fits(const View::Node& n, const Demand& d) {
  const std::string* missing;
  if (std::find(d.refused.begin(), d.refused.end(), n.index) != d.refused.end()) return false;
  if (!view_.resolve(d.resources, &needs_, &missing)) return false;
  for (const Need& need : needs_) {
    const View::Stock* s = n.stock(need.axis);
    if (!s || s->total < need.amount || s->reach() < (d.work == Work::kTask ? need.amount : 0)) return false;
  }
  return true;
}

// True: nothing is to be decided. The question was answered with a node that still takes things, or a later one was
// asked meanwhile.
bool GlobalScheduler::answer_again(const Demand& d, Actions* out) {
  const Decision* last = decisions_.find(d.id);
  if (!last) return false;
  if (std::pair(d.attempt, d.hops) < std::pair(last->attempt, last->hops)) return true;
  if (d.attempt != last->attempt || d.hops != last->hops || last->outcome != Action::kPlace) return false;
  const View::Node* n = view_.find(last->node, last->epoch);
  if (!n || n->draining || !still_fits(*n, d)) return false;
  Action& a = out->emplace_back(Action{Action::kPlace});
  a.id = d.id;
  a.attempt = d.attempt;
  a.hops = d.hops;
  a.moved = last->moved;
  a.pinned = last->pinned;
  a.to = d.from;
  a.node = last->node;
  a.epoch = last->epoch;
  a.seq = last->seq;
  return true;
}

Decision* GlobalScheduler::record(const Demand& d, int64_t now) {
  Decision* r = decisions_.add(d.id);
  r->attempt = d.attempt;
  r->hops = d.hops;
  r->from = d.from;
  r->at = now;
  r->looked = looked_;
  r->run_ns = run_ns_;
  r->input_bytes = input_bytes_;
  return r;
}

void GlobalScheduler::place(const Demand& d, int64_t now, Actions* out) {
  const Candidate chosen = *chosen_;
  Action& a = out->emplace_back(Action{Action::kPlace});
  a.id = d.id;
  a.attempt = d.attempt;
  a.hops = d.hops;
  a.moved = d.hops + (chosen.node != d.from);
  a.pinned = a.moved >= options_.pin_hops;
  a.to = d.from;
  a.node = chosen.node;
  a.epoch = chosen.at->epoch;
  a.seq = view_.place(*chosen.at, needs_, run_ns_, d.work == Work::kActor, now);
  Decision* r = record(d, now);
  r->outcome = Action::kPlace;
  r->node = a.node;
  r->epoch = a.epoch;
  r->seq = a.seq;
  r->moved = a.moved;
  r->pinned = a.pinned;
  r->rule = rule_;
  // The place first, then the one where it was, then the cheapest of the rest.
  auto rank = [&](const Candidate& c) { return c.node == chosen.node ? 0 : c.node == d.from ? 1 : 2; };
  const size_t n = std::min<size_t>(candidates_.size(), Decision::kTerms);
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(n), candidates_.end(),
                    [&](const Candidate& x, const Candidate& y) {
                      return std::tuple(rank(x), x.cost_ns, x.load, x.node) < std::tuple(rank(y), y.cost_ns, y.load, y.node);
                    });
  for (size_t i = 0; i < n; ++i) r->term[i] = candidates_[i];
  r->terms = static_cast<uint32_t>(n);
}

void GlobalScheduler::tell(const Demand& d, const Verdict& v, Actions* out) const {
  Action& a = out->emplace_back(Action{v.kind});
  a.id = d.id;
  a.attempt = d.attempt;
  a.hops = d.hops;
  a.to = d.from;
  a.again_ns = v.kind == Action::kInfeasible ? options_.infeasible_ns : options_.wait_ns;
  a.text = v.text;
}

// ---- what waits

void GlobalScheduler::keep(const Demand& d, int64_t now, Actions* out) {
  auto line = lines_.try_emplace(kind_of(d, options_.max_hops)).first;
  Line& l = line->second;
  if (l.demands.empty() || l.generation != view_.generation()) {
    const std::string* missing;
    view_.resolve(d.resources, &needs_, &missing);
    l.generation = view_.generation();
    l.verdict = explain(d);
  }
  tell(d, l.verdict, out);
  Decision* r = record(d, now);
  r->outcome = l.verdict.kind;
  r->text = l.verdict.text;
  if (waiting_.size() >= options_.max_waiting) {
    if (l.demands.empty()) lines_.erase(line);
    return;
  }
  const std::pair<int64_t, uint64_t> at(-int64_t{d.priority}, next_wait_++);
  l.demands.emplace(at, Wait{d, now});
  waiting_.emplace(d.id, Place(line, at));
  asked_.emplace(now, d.id);
}

// True: it waits here already, and goes on doing so at its place.
bool GlobalScheduler::ask_again(const Demand& d, int64_t now, Actions* out) {
  auto it = waiting_.find(d.id);
  if (it == waiting_.end()) return false;
  auto [line, at] = it->second;
  Wait& w = line->second.demands.at(at);
  const std::pair asked(d.attempt, d.hops), known(w.demand.attempt, w.demand.hops);
  if (asked < known) return true;
  if (asked > known || kind_of(d, options_.max_hops) != line->first) {
    forget(it);
    return false;
  }
  asked_.erase({w.asked_at, d.id});
  asked_.emplace(w.asked_at = now, d.id);
  w.demand = d;
  tell(d, line->second.verdict, out);
  return true;
}

void GlobalScheduler::forget(std::unordered_map<TaskId, Place>::iterator it) {
  auto [line, at] = it->second;
  auto wait = line->second.demands.find(at);
  asked_.erase({wait->second.asked_at, it->first});
  line->second.demands.erase(wait);
  if (line->second.demands.empty()) lines_.erase(line);
  waiting_.erase(it);
}

// Some lines, beginning behind the last one of the last time.
void GlobalScheduler::serve(int64_t now, Actions* out) {
  served_at_ = now;
  if (std::exchange(changed_, false)) to_serve_ = lines_.size();
  uint32_t places = 0;
  for (uint32_t i = 0; i < options_.serve_lines && to_serve_ > 0 && !lines_.empty(); ++i, --to_serve_) {
    auto line = lines_.upper_bound(next_line_);
    if (line == lines_.end()) line = lines_.begin();
    const std::string before = std::exchange(next_line_, line->first);
    if (serve_line(line, &places, now, out)) continue;
    next_line_ = before;  // it goes on with the same
    return;
  }
  if (lines_.empty()) to_serve_ = 0;
}

// False: that is enough at a time.
bool GlobalScheduler::serve_line(std::map<std::string, Line>::iterator line, uint32_t* places, int64_t now, Actions* out) {
  Line& l = line->second;
  for (;;) {
    auto first = l.demands.begin();
    const Demand d = first->second.demand;
    if (!decide(d)) break;
    if (++*places > options_.serve_places) return false;
    const bool last = l.demands.size() == 1;
    forget(waiting_.find(d.id));
    place(d, now, out);
    if (last) return true;  // the line is gone
  }
  if (l.generation == view_.generation()) return true;
  l.generation = view_.generation();
  const Action::Kind before = l.verdict.kind;
  l.verdict = explain(l.demands.begin()->second.demand);
  if (l.verdict.kind != before)
    for (const auto& [at, w] : l.demands) tell(w.demand, l.verdict, out);
  return true;
}

std::string GlobalScheduler::why(const TaskId& id) const {
  const Decision* d = decisions_.find(id);
  return d ? d->to_text() : "";
}

std::string GlobalScheduler::check() const {
  std::string broken = view_.check();
  if (broken.empty()) broken = groups_.check();
  if (!broken.empty()) return broken;
  size_t n = 0;
  for (const auto& [kind, line] : lines_) {
    if (line.demands.empty()) return "a line without demands";
    for (const auto& [at, w] : line.demands) {
      auto it = waiting_.find(w.demand.id);
      if (it == waiting_.end() || it->second.second != at) return "a demand waits in a line and is not known";
      ++n;
    }
  }
  return n == waiting_.size() && n == asked_.size() ? "" : "a demand is known and waits in no line";
}

}  // namespace ray::global
