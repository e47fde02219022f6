// A worker that waits, or that is to end: giving back what it has not begun, lending its CPU, leaving when what it has
// submitted is done. Threads: lend and take_back in whatever thread waits for a task; leave in the receiver;
// depart in task threads; the rest also in the pulse thread. See worker.h.
#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"

namespace ray {

// Returns tasks that wait unstarted in a ring to their client. link->mutex held. Calls of an actor
// stay: they have an order. False: the client does not read, and has no room for more answers now.
bool WorkerSide::give_back(ServeLink* link, bool blocked) {
  if (is_actor_) return true;
  constexpr uint64_t kRoom = 4 * (sizeof(RecordHeader) + sizeof(wire::ReturnedHeader));
  RecordView r;
  bool any = false, room = true;
  while ((room = link->results.capacity() - link->results.used() >= kRoom) &&
         link->tasks.next(&r) == RingConsumer::Next::kRecord) {
    wire::TaskHeader h;
    if (!wire::read_head(wire::bytes_of(r.data, r.size), &h)) continue;
    link->claims.push_back({r.end, true});
    forget_cancel(link, r.end);  // its client knows
    void* at = link->results.reserve(wire::kLinkReturned, sizeof(wire::ReturnedHeader));
    if (!at) break;  // there is room
    wire::put_head(static_cast<uint8_t*>(at), wire::ReturnedHeader{h.tag, blocked, 0});
    any = true;
  }
  if (any) {
    link->results.publish();
    complete_claim(link, 0);
  }
  if (any || !room) runtime_->bells().ring(link->client);
  return room;
}

void WorkerSide::give_back_all() {
  if (is_actor_) return;
  std::vector<std::shared_ptr<ServeLink>> links;
  {
    std::lock_guard lock(links_mutex_);
    links = links_;
  }
  for (auto& l : links) {
    std::lock_guard lock(l->mutex);
    (void)give_back(l.get(), true);  // again before every sleep
  }
}

void WorkerSide::retire() {
  retiring_ = true;
  runtime_->daemon().up_bytes(wire::kUpRetire, nullptr, 0, nullptr, 0);
}

// ---- lending

// The task that this thread runs is going to wait: while all that run here do, their CPU may run others. Null: nobody
// can use it.
const TaskContext* WorkerSide::lend() {
  const TaskContext* waits = runtime_->context();
  if (!retiring_ && (outstanding_ == 0 || !runtime_->in_task())) return nullptr;
  give_back_all();
  std::lock_guard lock(lend_mutex_);
  ++waiting_[waits];
  n_waiting_ = waiting_.size();
  tell_lent();
  return waits;
}

void WorkerSide::take_back(const TaskContext* waited) {
  std::lock_guard lock(lend_mutex_);
  auto it = waiting_.find(waited);
  if (--it->second == 0) waiting_.erase(it);
  n_waiting_ = waiting_.size();
  tell_lent();
}

// Another call runs here, or one less. Who waits is counted before it looks what runs, and the other way round: one of
// the two sees the other.
void WorkerSide::running_changed() {
  if (__builtin_expect(n_waiting_ == 0, 1)) return;
  std::lock_guard lock(lend_mutex_);
  tell_lent();
}

// In the order in which it was so: the lock is kept over the message. lend_mutex_ held.
void WorkerSide::tell_lent() {
  const bool all_wait = !waiting_.empty() && waiting_.size() >= outstanding_;
  if (all_wait == lent_) return;
  lent_ = all_wait;
  runtime_->daemon().up(wire::kUpBlocked, wire::UpBlocked{all_wait, 0});
}

// ---- leaving

// The node does not need this worker any more. What it has submitted still goes through it: others may have the
// references. So is it with actors that it made and still has handles of.
void WorkerSide::leave() {
  if (is_actor_) return stop();
  leaves_ = true;
  runtime_->bells().poke();
}

// When nothing runs here any more, nothing ever will: no call is claimed while it leaves.
void WorkerSide::depart() {
  if (outstanding_ != 0) return;
  bool done;
  {
    std::lock_guard lock(runtime_->mutex_);
    done = runtime_->may_leave();
  }
  if (!done) return retiring_ ? void() : retire();
  stop_ = true;
  runtime_->bells().poke();
}

bool WorkerSide::about_to_leave() const {
  return leaving() || ((unwanted_ || (leaves_ && !retiring_)) && outstanding_ == 0);
}

}  // namespace ray
