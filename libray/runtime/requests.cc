// Requests: calls that the daemon answers, each with a number that its answer comes back with. See daemon_channel.h.
//
// Threads: callers; on_reply on the receiver's. Who waits sleeps under calls_mutex_, which may be taken with the runtime's
// mutex held and never the other way round.
#include <algorithm>
#include <chrono>
#include <utility>

#include "libray/base/proc.h"
#include "libray/runtime/daemon_channel.h"
#include "libray/wire/limits.h"

namespace ray {

void DaemonChannel::send_request(uint64_t id, uint32_t op, const std::string& args) {
  std::lock_guard order(requests_mutex_);  // fragments of two requests do not mix
  wire::UpRequest r{id, op, 0};
  size_t at = 0;
  do {
    size_t n = std::min<size_t>(wire::kFragmentMax, args.size() - at);
    bool more = at + n < args.size();
    up_bytes(wire::kUpRequest, &r, sizeof r, args.data() + at, n, more ? wire::kMore : 0);
    at += n;
  } while (at < args.size());
}

Status DaemonChannel::check_request(const std::string& args) {
  if (args.size() <= wire::kMaxRequest) return Status();
  return error(RAY_INVALID_ARGUMENT, "a request of %zu bytes: at most %zu are possible; values that are larger go through "
               "the object store (ray_put)", args.size(), wire::kMaxRequest);
}

void DaemonChannel::tell(uint32_t op, const std::string& args) { send_request(0, op, args); }

uint64_t DaemonChannel::begin_call(std::shared_ptr<Call>* out, std::function<void(const std::string&)> unclaimed) {
  *out = std::make_shared<Call>();
  (*out)->unclaimed = std::move(unclaimed);
  std::lock_guard lock(calls_mutex_);
  uint64_t id = next_call_++;
  calls_[id] = *out;
  return id;
}

void DaemonChannel::answer_here(uint64_t id, ray_code code, const std::string& text) {
  std::lock_guard lock(calls_mutex_);
  auto it = calls_.find(id);
  if (it == calls_.end()) return;
  Call& c = *it->second;
  c.code = code;
  c.answer = text;
  c.done = true;
  c.abandoned ? (void)calls_.erase(it) : calls_cv_.notify_all();
}

void DaemonChannel::on_reply(const wire::DnReply& r, uint16_t flags, const uint8_t* p, size_t n) {
  std::unique_lock lock(calls_mutex_);
  auto it = calls_.find(r.req_id);
  if (it == calls_.end()) return;
  std::shared_ptr<Call> c = it->second;
  c->answer.append(reinterpret_cast<const char*>(p), n);
  if (flags & wire::kMore) return;
  c->code = r.code;
  c->done = true;
  if (!c->abandoned) return calls_cv_.notify_all();
  calls_.erase(it);
  lock.unlock();
  if (c->code == RAY_OK) c->unclaimed(c->answer);
}

void DaemonChannel::wake_calls() {
  std::lock_guard lock(calls_mutex_);
  calls_cv_.notify_all();
}

Status DaemonChannel::await_call(uint64_t id, const std::shared_ptr<Call>& call, std::string* answer, int64_t timeout_ns) {
  std::unique_lock lock(calls_mutex_);
  Status over;
  auto done = [&] { return call->done || !(over = user_->why_over()).ok(); };
  constexpr int64_t kAtOnce = 10000000;   // what takes longer may wait for tasks, which need the CPU of this one
  constexpr int64_t kSlice = 2000000000;  // then a look whether the daemon can answer at all
  const void* slept = nullptr;
  bool at_once = user_->lends();
  for (int64_t left = timeout_ns; left != 0;) {
    int64_t slice = at_once ? kAtOnce : kSlice;
    if (left > 0) slice = std::min(left, slice);
    if (calls_cv_.wait_for(lock, std::chrono::nanoseconds(slice), done)) break;
    if (left > 0) left -= slice;
    lock.unlock();
    if (std::exchange(at_once, false)) slept = user_->sleeps();
    else warn_if_stopped();
    lock.lock();
  }
  if (slept) lock.unlock(), user_->woke(slept), lock.lock();
  call->abandoned = !call->done && call->unclaimed;
  if (!call->abandoned) calls_.erase(id);
  if (!call->done) {
    if (over.ok()) over = user_->why_over();
    if (!over.ok()) return over;
    if (is_stopped(daemon_pid_))
      return error(RAY_TIMED_OUT, "the node daemon (pid %d) is stopped by a signal: `kill -CONT %d` resumes it",
                   daemon_pid_, daemon_pid_);
    return error(RAY_TIMED_OUT, "the node daemon did not answer in time");
  }
  if (call->code != RAY_OK) return Status(call->code, call->answer);
  if (answer) *answer = std::move(call->answer);
  return Status();
}

Status DaemonChannel::request(uint32_t op, const std::string& args, std::string* answer, int64_t timeout_ns) {
  RAY_TRY(check_request(args));
  std::shared_ptr<Call> call;
  uint64_t id = begin_call(&call);
  return transact(id, call, op, args, answer, timeout_ns);
}

Status DaemonChannel::transact(uint64_t id, const std::shared_ptr<Call>& call, uint32_t op, const std::string& args,
                               std::string* answer, int64_t timeout_ns) {
  send_request(id, op, args);
  return await_call(id, call, answer, timeout_ns);
}

}  // namespace ray
