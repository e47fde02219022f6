// See stand_in.h.
#include "libray/relay/stand_in.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/runtime/runtime.h"
#include "libray/wire/packed.h"
#include "store/client.h"

namespace ray::relay {
namespace {

constexpr uint64_t kMaxInbox = 4 * kWindowBytes;      // of answers; who sends more breaks the rules
constexpr auto kLook = std::chrono::milliseconds(200);  // between looks whether the daemon has closed the socket
constexpr auto kLastAnswers = std::chrono::seconds(5);  // at the end, for those that have come

bool can_travel(const Execution& e) {
  if (e.header.stream_window != 0 || e.args.size() > kMaxValues) return false;
  return std::all_of(e.args.begin(), e.args.end(), [](const ray_buffer& a) { return a.n_refs == 0 && a.n_oob <= kMaxBuffers; });
}

Value value_of(const ray_buffer& b) {
  Value v;
  v.given = true;
  v.format = b.format;
  v.data = {static_cast<const char*>(b.data), b.size};
  for (uint64_t i = 0; i < b.n_oob; ++i) v.oob.push_back({static_cast<const char*>(b.oob[i].data), b.oob[i].size});
  return v;
}

}  // namespace

StandIn::~StandIn() {
  if (thread_.joinable()) thread_.join();
}

// ---- from the transport and the relay

void StandIn::on_record(const Record& r, const std::shared_ptr<const std::string>& message) {
  if (r.kind == Kind::kLaneOver) return end(std::string(r.bytes));
  std::unique_lock lock(mutex_);
  if (r.kind == Kind::kLaneOpen) {
    if (over_ || opened_.exchange(true)) return;
    Status s = start_thread(&thread_, "a thread of the relay", [this] { run(); });
    if (s.ok()) return;
    opened_ = false;
    lock.unlock();
    return end(s.message());
  }
  if (r.kind == Kind::kTaskRoom) {
    under_way_ -= std::min(under_way_, r.bytes_done);
    wake_.notify_all();
    return;
  }
  if (!opened_) return;
  inbox_bytes_ += r.size;
  inbox_.push_back({r, message});
  more_.notify_one();
  if (inbox_bytes_ <= kMaxInbox) return;
  lock.unlock();
  end(host_->name_of(options_.node) + " sends more than it may");
}

void StandIn::end(const std::string& why) {
  std::lock_guard life(life_mutex_);
  {
    std::lock_guard lock(mutex_);
    if (over_) return;
    over_ = true;
    why_ = why;
    wake_.notify_all();
  }
  if (side_) side_->stop();
  if (opened_) return;
  unlane();  // no thread of its own will
  host_->stand_in_over(options_.spawn, why);
}

// Also a lane that is not open, or that the other side has ended: its relay keeps the number until it is told.
void StandIn::unlane() {
  Record r;
  r.kind = Kind::kUnlane;
  r.lane = options_.spawn;
  r.flags = 1;  // whatever runs has nobody who waits for it
  std::string message;
  encode(r, &message);
  host_->send(options_.node, std::move(message));
}

void StandIn::leave() {
  std::lock_guard life(life_mutex_);
  leaves_ = true;
  if (side_) side_->leave();
}

// ---- taking tasks

Status StandIn::start() {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  options.language = options_.language;
  StartAs as;
  as.session = options_.session;
  as.stand_in = this;
  as.spawn = options_.spawn;
  as.window = kWindowTasks;
  Runtime* made = nullptr;
  RAY_TRY(Runtime::start(options, &as, &made));
  std::lock_guard life(life_mutex_);
  runtime_ = made;
  side_ = made->worker();
  if (leaves_) side_->leave();
  return start_thread(&answers_, "a thread of the relay", [this] { answer(); });
}

void StandIn::run() {
  if (Status s = start(); s.ok()) take();
  else end(s.message());
  finish_up();
}

void StandIn::take() {
  while (await_room()) {
    Execution* e;
    if (!side_->next(-1, &e).ok()) return;
    forward(e);
    while (batch_.size() < kBatch && has_room() && side_->next(0, &e).ok()) forward(e);
    flush();
  }
}

bool StandIn::has_room() {
  std::lock_guard lock(mutex_);
  return !over_ && under_way_ < kWindowBytes;
}

// Until something more may be sent; false: this is over.
bool StandIn::await_room() {
  std::unique_lock lock(mutex_);
  while (!over_ && under_way_ >= kWindowBytes && !side_->ends()) wake_.wait_for(lock, kLook);
  return !over_ && under_way_ < kWindowBytes;
}

void StandIn::append(const Record& r) {
  const uint64_t n = encode(r, &batch_);
  if (!is_counted(r.kind)) return;
  std::lock_guard lock(mutex_);
  under_way_ += n;
}

// What concerns tasks that had not been sent goes behind them.
void StandIn::flush() {
  if (batch_.empty()) return;
  std::lock_guard lock(mutex_);
  sent_ = batched_;
  Record r;
  r.lane = options_.spawn;
  r.kind = Kind::kCancel;
  std::erase_if(early_, [&](const auto& c) {
    if (c.first > sent_) return false;
    r.number = c.first, r.flags = c.second;
    encode(r, &batch_);
    return true;
  });
  r.kind = Kind::kRecall;
  if (std::exchange(recall_, false)) encode(r, &batch_);
  host_->send(options_.node, std::move(batch_));
  batch_.clear();
}

void StandIn::forward(Execution* e) {
  const wire::TaskHeader& h = e->header;
  if (!e->link) return refuse_actor(e);
  if (!can_travel(*e)) return side_->return_forwarded(e, true);
  if (!host_->has_function(options_.node, options_.job, h.function)) {
    if (Status s = side_->definition(e); !s.ok()) {
      const ray_code code = s.code() == RAY_NOT_FOUND ? RAY_UNKNOWN_FUNCTION : s.code() == RAY_CANCELLED ? RAY_CANCELLED
                                                                                                          : RAY_TASK_FAILED;
      return side_->finish_forwarded(e, code, 0, false, wire::pack_error(code, s.message(), 0, {}), 0);
    }
    host_->tell_function(options_.node, options_.job, h.function, e->definition);
  }
  const uint64_t number = ++next_;
  {
    std::lock_guard lock(mutex_);
    tasks_[number] = e;
    taken_ = number;
  }
  Record r;
  r.kind = Kind::kTask;
  r.lane = options_.spawn;
  r.task.number = number;
  r.task.id = h.task;
  r.task.parent = h.parent;
  r.task.attempt = h.attempt;
  r.task.function = h.function;
  r.task.name = e->name;
  r.task.n_returns = h.n_returns;
  r.task.caller = static_cast<int32_t>(h.flags >> wire::kCallerShift & 0xff);
  if (!forward_arguments(e, number, &r.task)) return;  // dropped at the end
  append(r);
  batched_ = number;
  side_->forwarded(e, number);
}

bool StandIn::forward_arguments(Execution* e, uint64_t number, Task* task) {
  uint64_t in_record = 0;
  for (uint32_t i = 0; i < e->args.size(); ++i) {
    Value v = value_of(e->args[i]);
    const uint64_t bytes = v.bytes() + 16 * (1 + v.oob.size());
    if (fits_in_place(bytes, in_record)) {
      in_record += bytes;
    } else {
      if (!send_parts(v, number, i)) return false;
      v.data = {};
      v.oob.clear();
      v.apart = true;
    }
    task->args.push_back(std::move(v));
  }
  return true;
}

bool StandIn::send_parts(const Value& v, uint64_t number, uint32_t index) {
  Record r;
  r.lane = options_.spawn;
  r.number = number;
  r.index = index;
  r.kind = Kind::kArgument;
  r.value.given = r.value.apart = true;
  r.value.format = v.format;
  r.value.size = v.data.size();
  for (std::string_view b : v.oob) r.value.oob_sizes.push_back(b.size());
  append(r);
  r.kind = Kind::kArgumentPart;
  r.value = {};
  auto send = [&](std::string_view bytes) {
    for (size_t at = 0; at < bytes.size(); at += kPart) {
      if (!has_room() || batch_.size() >= kBatch) flush();
      if (!await_room()) return false;
      r.bytes = bytes.substr(at, kPart);
      append(r);
    }
    return true;
  };
  if (!send(v.data)) return false;
  return std::all_of(v.oob.begin(), v.oob.end(), send);
}

void StandIn::refuse_actor(Execution* e) {
  side_->fail(e, "actors do not run on other nodes yet: ask for what its own node has", nullptr);
  (void)side_->finish(e, RAY_TASK_FAILED);
}

// ---- what clients ask for

void StandIn::cancel(uint64_t number, uint32_t flags) {
  std::lock_guard lock(mutex_);
  if (over_) return;
  if (number > sent_) return early_.push_back({number, flags});
  Record r;
  r.kind = Kind::kCancel;
  r.lane = options_.spawn;
  r.number = number;
  r.flags = flags;
  std::string message;
  encode(r, &message);
  host_->send(options_.node, std::move(message));
}

void StandIn::give_back() {
  std::lock_guard lock(mutex_);
  if (over_ || tasks_.empty()) return;
  recall_ |= taken_ > sent_;
  Record r;
  r.kind = Kind::kRecall;
  r.lane = options_.spawn;
  std::string message;
  encode(r, &message);
  host_->send(options_.node, std::move(message));
}

// ---- ending tasks

void StandIn::answer() {
  std::unique_lock lock(mutex_);
  for (;;) {
    more_.wait(lock, [this] { return ends_ || !inbox_.empty(); });
    if (inbox_.empty()) break;
    Item item = std::move(inbox_.front());
    inbox_.pop_front();
    inbox_bytes_ -= item.record.size;
    lock.unlock();
    take_record(item.record);
    if (is_counted(item.record.kind)) grant(item.record.size);
    lock.lock();
  }
  answered_ = true;
  wake_.notify_all();
}

void StandIn::grant(uint64_t bytes) {
  to_grant_ += bytes;
  if (to_grant_ < kWindowBytes / 4) return;
  Record r;
  r.kind = Kind::kResultRoom;
  r.lane = options_.spawn;
  r.bytes_done = std::exchange(to_grant_, 0);
  std::string message;
  encode(r, &message);
  host_->send(options_.node, std::move(message));
}

void StandIn::take_record(const Record& r) {
  switch (r.kind) {
    case Kind::kResult: return open_result(r);
    case Kind::kResultPart: return fill_result(r);
    case Kind::kDone: return done(r.done);
    case Kind::kReturned: return returned(r);
    default: return;  // of no meaning from that side
  }
}

Execution* StandIn::take_task(uint64_t number, bool remove) {
  std::lock_guard lock(mutex_);
  auto it = tasks_.find(number);
  if (it == tasks_.end() || number > sent_) return nullptr;  // the other thread still works at what was not sent
  Execution* e = it->second;
  if (remove) tasks_.erase(it);
  return e;
}

void StandIn::open_result(const Record& r) {
  filling_ = {r.number, r.index};
  Execution* e = take_task(r.number, false);
  if (!e) return;
  Incoming& c = coming_[filling_];
  if (r.value.format == wire::kFmtError) return c.open_error(r.value);
  c.open(r.value, [&](const ray_value& shape, WriterState* w) { return side_->open_result(e, r.index, shape, w); });
}

void StandIn::fill_result(const Record& r) {
  if (auto it = coming_.find(filling_); it != coming_.end()) it->second.fill(r.bytes);
}

Status StandIn::set_result(Execution* e, uint64_t number, uint32_t index, const Value& v) {
  if (v.apart) {
    auto it = coming_.find({number, index});
    if (it == coming_.end()) return error(RAY_INTERNAL, "its bytes did not come");
    RAY_TRY(it->second.whole());
    if (WriterState* w = it->second.writer()) return side_->seal_result(w);
    Value in_place;
    in_place.given = true;
    in_place.format = wire::kFmtError;
    in_place.data = it->second.image();
    return set_result(e, number, index, in_place);
  }
  if (v.format == wire::kFmtError) {
    ray_code code = RAY_TASK_FAILED;
    std::string message, payload;
    uint32_t format = 0;
    if (!wire::unpack_error(v.data.data(), v.data.size(), &code, &message, &format, &payload))
      return error(RAY_INTERNAL, "its error is damaged");
    const ray_value value = ray_plain(payload.data(), payload.size(), format);
    return side_->set_error_result(e, index, code, message, payload.empty() ? nullptr : &value);
  }
  std::vector<ray_bytes> oob;
  for (std::string_view b : v.oob) oob.push_back({b.data(), b.size()});
  ray_value value = ray_plain(v.data.data(), v.data.size(), v.format);
  value.oob = oob.data();
  value.n_oob = oob.size();
  RAY_TRY(check_value(value));
  return side_->set_result(e, index, value);
}

Status StandIn::set_results(Execution* e, const Done& d) {
  if (d.results.size() != e->header.n_returns)
    return error(RAY_INTERNAL, "it has %zu results instead of %u", d.results.size(), e->header.n_returns);
  for (uint32_t i = 0; i < d.results.size(); ++i) {
    if (!d.results[i].given) return error(RAY_INTERNAL, "result %u did not come", i);
    if (Status s = set_result(e, d.number, i, d.results[i]); !s.ok())
      return error(s.code(), "result %u: %s", i, s.message().c_str());
  }
  return Status();
}

void StandIn::done(const Done& d) {
  if (Execution* e = take_task(d.number, true)) {
    uint32_t bits = wire::kDoneTold | (d.flags & kDied ? wire::kDoneDied : 0);
    ray_code code = d.code;
    std::string image;
    if (code == RAY_OK) {
      if (Status s = set_results(e, d); !s.ok()) {
        code = s.code();
        bits = 0;
        image = wire::pack_error(code, "it ran on " + host_->name_of(options_.node) + ", and what came back cannot be kept: " +
                                           s.message(), 0, {});
      }
    } else if (!d.results.empty() && d.results[0].apart) {
      auto it = coming_.find({d.number, 0});
      if (it != coming_.end() && it->second.whole().ok()) image = std::move(it->second.image());
    } else if (!d.results.empty()) {
      image = d.results[0].data;
    }
    if (code != RAY_OK && image.empty()) {
      bits &= ~wire::kDoneTold;
      image = wire::pack_error(code, "its error did not come", 0, {});
    }
    side_->finish_forwarded(e, code, bits, d.flags & kFinal, std::move(image), d.run_ns);
  }
  forget_coming(d.number);
}

void StandIn::returned(const Record& r) {
  Execution* e = take_task(r.number, true);
  if (e && r.flags & kUnknownFunction) host_->lost_function(options_.node, options_.job, e->header.function);
  if (e) side_->return_forwarded(e, r.flags & kBound);
  forget_coming(r.number);
}

void StandIn::forget_coming(uint64_t number) {
  auto it = coming_.lower_bound({number, 0});
  while (it != coming_.end() && it->first.first == number) it = coming_.erase(it);
}

// ---- the end

void StandIn::finish_up() {
  std::unique_lock lock(mutex_);
  over_ = ends_ = true;
  more_.notify_all();
  if (answers_.joinable() && !wake_.wait_for(lock, kLastAnswers, [this] { return answered_; })) {
    lock.unlock();
    side_->abandon_links();  // a client that does not read
    lock.lock();
  }
  unlane();
  lock.unlock();
  if (answers_.joinable()) answers_.join();
  while (!coming_.empty()) forget_coming(coming_.begin()->first.first);
  for (auto& [number, e] : tasks_) side_->drop_forwarded(e);
  {
    std::lock_guard life(life_mutex_);
    side_ = nullptr;
  }
  if (runtime_) {
    runtime_->set_context(nullptr);
    (void)runtime_->shutdown(0);
    delete runtime_;
  }
  host_->stand_in_over(options_.spawn, why_);
}

}  // namespace ray::relay
