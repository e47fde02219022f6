// Leases: carries out what the rules of libray/task decide, and tells them what the daemon said. See runtime.h for locks.
//
// Who calls it: the receiver (on_grant, on_reclaim), pulse (look_after_leases), and whoever submits, drains or
// cancels. Invariant: what the rules have decided is carried out before the lock is dropped.
#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"

namespace ray {

// As many workers as the estimated work fills for one window each, and more: see LeasePolicy.
void Runtime::send_want(const Shape* s, uint32_t want) {
  wire::UpLeaseWant w{s->index, want, {}};
  if (s->backlog.head) w.example = s->backlog.head->id;
  daemon_.up(wire::kUpLeaseWant, w);
}

void Runtime::withdraw_want(Shape* s) {
  leases_.withdraw_want(s, &todo_);
  carry_out();
}

// What the rules have decided. mutex_ held.
void Runtime::carry_out() {
  for (const auto& a : todo_) {
    switch (a.kind) {
      case task::LeaseAction<TaskKit>::kWant: send_want(a.shape, a.number); break;
      case task::LeaseAction<TaskKit>::kReturn:
        daemon_.up(wire::kUpLeaseReturn, wire::UpLeaseReturn{a.link->peer, a.number});
        break;
      case task::LeaseAction<TaskKit>::kAskBack:
        a.link->header->give_back.fetch_add(1, std::memory_order_release);
        bells_.ring_both(a.link->peer);
        break;
    }
  }
  todo_.clear();
}

// Before the first task of the lease is written: its worker reads the numbers there.
static void write_gpus(wire::LinkHeader* h, const uint8_t* gpus, size_t n) {
  n = std::min<size_t>(n, wire::kLinkGpus);
  for (size_t i = 0; i < n; ++i) {
    uint32_t id;
    std::memcpy(&id, gpus + i * sizeof id, sizeof id);
    h->gpus[i].store(id, std::memory_order_relaxed);
  }
  h->n_gpus.store(static_cast<uint32_t>(n), std::memory_order_relaxed);
}

void Runtime::on_grant(const wire::DnLease& g, const uint8_t* gpus, size_t n_gpus) {
  auto it = links_.find(g.link);
  // A lease for a shape that nothing is placed in any more was on its way when that was told.
  Shape* s = g.shape < shape_list_.size() && it != links_.end() ? shape_list_[g.shape] : nullptr;
  Lease* l = s ? leases_.granted(s, it->second.get(), g.lease, steady_ns()) : nullptr;
  if (!l) return daemon_.up(wire::kUpLeaseReturn, wire::UpLeaseReturn{g.worker, g.lease});
  write_gpus(l->link->header, gpus, n_gpus);
  pump(s);
}

void Runtime::on_reclaim(const wire::DnLease& g) {
  auto link = link_of_peer_.find(g.worker);
  Lease* l = link == link_of_peer_.end() ? nullptr : link->second->lease;
  if (!l || l->lease != g.lease) return;
  leases_.reclaimed(l, &todo_);
  carry_out();
}

// Before somebody asks what is available: what is kept for a next task that may never come does not count.
void Runtime::return_idle_leases() {
  std::lock_guard lock(mutex_);
  progress();
  leases_.give_back_idle(&todo_);
  carry_out();
}

void Runtime::ask_give_back(ClientLink* link) {
  LeasePolicy::ask_back(link, &todo_);
  carry_out();
}

// Every few milliseconds, while there are any.
void Runtime::look_after_leases(int64_t now) {
  for (size_t at = 0; at < leases_.active().size();) {
    Shape* s = leases_.active()[at];
    const LeasePolicy::Seen seen = leases_.look(s, now, &todo_);
    carry_out();
    if (seen.pump) pump(s);
    feeding_ |= !s->backlog.empty() && !s->leases.empty();
    at += leases_.settle(at, seen, &todo_);
    carry_out();
  }
}

void TaskKit::broken(const char* what) {
  log(kLogError, "runtime", "invariant", "an invariant does not hold any more: %s", what);
  (void)::raise(SIGABRT);  // with a core, for whoever looks for the reason
  ::_exit(1);
}

}  // namespace ray
