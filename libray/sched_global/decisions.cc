// See decisions.h.
#include "libray/sched_global/decisions.h"

#include "libray/base/status.h"

namespace ray::global {

Decision* Decisions::add(const TaskId& id) {
  Decision* d = &ring_[next_];
  auto old = by_id_.find(d->id);
  if (old != by_id_.end() && old->second == next_) by_id_.erase(old);
  std::string text = std::move(d->text);  // its memory is used again
  text.clear();
  *d = Decision{};
  d->text = std::move(text);
  d->id = id;
  by_id_[id] = next_;
  next_ = (next_ + 1) % ring_.size();
  return d;
}

std::string Decision::to_text() const {
  std::string s = strprintf("%s (attempt %u, hop %u, from ", id.hex().c_str(), attempt, hops);
  s += from == kNoNode ? "outside" : strprintf("node %u", from);
  s += strprintf(") at %.6f s: ", static_cast<double>(at) / 1e9);
  if (outcome == Action::kPlace)
    s += strprintf("placed on node %u (epoch %u) as number %llu%s: %s", node, epoch, static_cast<unsigned long long>(seq),
                   pinned ? ", pinned" : "", rule);
  else
    s += (outcome == Action::kInfeasible ? "infeasible now: " : "waits: ") + text;
  s += strprintf("\n  it runs about %.3f ms and has %llu bytes of inputs; %u nodes were looked at\n", run_ns / 1e6,
                 static_cast<unsigned long long>(input_bytes), looked);
  for (uint32_t i = 0; i < terms; ++i)
    s += strprintf("  node %u: wait %.3f ms, transfer %.3f ms, cost %.3f ms, load %.3f with it%s\n", term[i].node,
                   term[i].wait_ns / 1e6, term[i].transfer_ns / 1e6, term[i].cost_ns / 1e6, term[i].load,
                   outcome == Action::kPlace && term[i].node == node ? "  <-" : "");
  return s;
}

}  // namespace ray::global
