// A stand-in's part of WorkerSide (worker.h): what it takes from its links runs on another node, and it ends what comes back
// from there. It claims as many tasks ahead as an actor with max_concurrency does, and each counts as begun from its claim:
// whether it has begun over there is not known when this process dies.
//
// Who: libray/relay/stand_in.cc. Threads: one takes, one ends; cancel_forwarded in the receiver and the pulse thread.
// Invariant: each task that was taken is ended, returned or dropped, once.
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/runtime/worker.h"

namespace ray {

void WorkerSide::stand_in_for(StandInUser* user, uint32_t window) {
  stand_in_ = user;
  max_concurrency_ = window;
}

// Whoever cancels has run_mutex_, too: it finds the number, or is found here.
void WorkerSide::forwarded(Execution* e, uint64_t number) {
  std::lock_guard lock(run_mutex_);
  e->number = number;
  if (e->cancelled) stand_in_->cancel(number, e->cancel_how);
}

// run_mutex_ held.
void WorkerSide::cancel_forwarded(Execution* e, uint32_t flags) {
  e->cancel_how |= flags;
  if (e->number) stand_in_->cancel(e->number, e->cancel_how);
}

void WorkerSide::finish_forwarded(Execution* e, ray_code code, uint32_t done_bits, bool no_retry, std::string image,
                                  uint64_t run_ns) {
  if (runtime_->context() == &e->context) runtime_->set_context(nullptr);
  e->no_retry = no_retry;
  if (code == RAY_OK)
    if (Status s = fit_results(e); !s.ok()) {
      code = s.code();
      image = wire::pack_error(code, s.message(), 0, {});
      done_bits = 0;
    }
  e->done_bits = done_bits;
  if (code != RAY_OK) {
    e->error_image = std::move(image);
    discard_results(e);
  }
  e->end_stamp = e->start_stamp + static_cast<int64_t>(std::min<uint64_t>(run_ns, INT64_MAX / 16));
  write_lineage(e, code);
  write_done(e, code);
  recycle(e);
}

void WorkerSide::return_forwarded(Execution* e, bool bound) {
  ServeLink* link = e->link.get();
  if (runtime_->context() == &e->context) runtime_->set_context(nullptr);
  discard_results(e);
  {
    std::unique_lock<SpinLock> lock;
    if (void* at = result_room(link, &lock, wire::kLinkReturned, sizeof(wire::ReturnedHeader))) {
      wire::put_head(static_cast<uint8_t*>(at), wire::ReturnedHeader{e->header.tag, 0, bound});
      publish(link);
    }
    complete_claim(link, e->end);
  }
  recycle(e);
}

void WorkerSide::drop_forwarded(Execution* e) {
  if (runtime_->context() == &e->context) runtime_->set_context(nullptr);
  discard_results(e);
  recycle(e);
}

void WorkerSide::abandon_links() {
  std::lock_guard lock(links_mutex_);
  for (auto& l : links_) l->dead = true;
}

}  // namespace ray
