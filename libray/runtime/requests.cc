// Requests: calls that the daemon answers, each with a number that its answer comes back with. See runtime.h.
//
// Who waits sleeps under calls_mutex_, which may be taken with mutex_ held and never the other way round.
#include <chrono>
#include <utility>

#include "libray/base/proc.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"
#include "libray/wire/limits.h"

namespace ray {

void Runtime::send_request(uint64_t id, uint32_t op, const std::string& args) {
  wire::UpRequest r{id, op, 0};
  size_t at = 0;
  do {
    size_t n = std::min<size_t>(wire::kFragmentMax, args.size() - at);
    bool more = at + n < args.size();
    up_bytes(wire::kUpRequest, &r, sizeof r, args.data() + at, n, more ? wire::kMore : 0);
    at += n;
  } while (at < args.size());
}

// The daemon cuts off whoever sends more.
Status Runtime::check_request(const std::string& args) {
  if (args.size() <= wire::kMaxRequest) return Status();
  return error(RAY_INVALID_ARGUMENT, "a request of %zu bytes: at most %zu are possible; values that are larger go through "
               "the object store (ray_put)", args.size(), wire::kMaxRequest);
}

void Runtime::tell(uint32_t op, const std::string& args) { send_request(0, op, args); }

uint64_t Runtime::begin_call(std::shared_ptr<Call>* out, bool names, const ActorId& mine) {
  *out = std::make_shared<Call>();
  (*out)->names = names;
  (*out)->mine = mine;
  std::lock_guard lock(calls_mutex_);
  uint64_t id = next_call_++;
  calls_[id] = *out;
  return id;
}

// The daemon was not asked, and will not be.
void Runtime::answer_here(uint64_t req_id, ray_code code, const std::string& text) {
  std::lock_guard lock(calls_mutex_);
  auto it = calls_.find(req_id);
  if (it == calls_.end()) return;
  Call& c = *it->second;
  c.code = code;
  c.answer = text;
  c.done = true;
  c.abandoned ? (void)calls_.erase(it) : calls_cv_.notify_all();
}

Status Runtime::await_call(uint64_t id, const std::shared_ptr<Call>& call, std::string* answer,
                           int64_t timeout_ns) {
  std::unique_lock lock(calls_mutex_);
  auto done = [&] { return call->done || node_dead() || stopped_ || cancelled_here(); };
  constexpr int64_t kAtOnce = 10000000;   // what takes longer may wait for tasks, which need the CPU of this one
  constexpr int64_t kSlice = 2000000000;  // then a look whether the daemon can answer at all
  const TaskContext* lent = nullptr;
  bool at_once = worker_ != nullptr;
  for (int64_t left = timeout_ns; left != 0;) {
    int64_t slice = at_once ? kAtOnce : kSlice;
    if (left > 0) slice = std::min(left, slice);
    if (calls_cv_.wait_for(lock, std::chrono::nanoseconds(slice), done)) break;
    if (left > 0) left -= slice;
    lock.unlock();
    if (std::exchange(at_once, false)) lent = worker_->lend();
    else warn_stopped_daemon();
    lock.lock();
  }
  if (lent) lock.unlock(), worker_->take_back(lent), lock.lock();
  call->abandoned = !call->done && call->names;
  if (!call->abandoned) calls_.erase(id);
  if (!call->done) {
    if (node_dead()) return error(RAY_NODE_DIED, "%s", death_.c_str());
    if (stopped_) return error(RAY_CANCELLED, "the runtime was shut down");
    if (cancelled_here()) return waiter_cancelled();
    if (is_stopped(daemon_pid_))
      return error(RAY_TIMED_OUT, "the node daemon (pid %d) is stopped by a signal: `kill -CONT %d` resumes it",
                   daemon_pid_, daemon_pid_);
    return error(RAY_TIMED_OUT, "the node daemon did not answer in time");
  }
  if (call->code != RAY_OK) return Status(call->code, call->answer);
  if (answer) *answer = std::move(call->answer);
  return Status();
}

Status Runtime::request(uint32_t op, const std::string& args, std::string* answer, int64_t timeout_ns) {
  RAY_TRY(check_request(args));
  std::shared_ptr<Call> call;
  uint64_t id = begin_call(&call);
  return transact(id, call, op, args, answer, timeout_ns);
}

Status Runtime::transact(uint64_t id, const std::shared_ptr<Call>& call, uint32_t op, const std::string& args,
                         std::string* answer, int64_t timeout_ns) {
  {
    std::lock_guard order(requests_mutex_);  // fragments of two requests do not mix
    send_request(id, op, args);
  }
  return await_call(id, call, answer, timeout_ns);
}

}  // namespace ray
