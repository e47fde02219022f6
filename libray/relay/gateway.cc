// See gateway.h. This file: its life, lanes, functions, and how tasks end; gateway_tasks.cc: arguments and submission.
#include "libray/relay/gateway.h"

#include <algorithm>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/runtime/runtime.h"
#include "libray/wire/packed.h"

namespace ray::relay {
namespace {

constexpr uint64_t kMaxWork = 256u << 20;           // records that wait for the thread; more than all lanes may send
constexpr int64_t kSameJobNs = 5'000'000'000;       // for the end of an earlier gateway of the job
constexpr auto kSameJobLook = std::chrono::milliseconds(50);

// The language of the driver, which its hello says.
int32_t language_of(std::string_view hello) {
  wire::Cursor r(hello);
  int32_t language = RAY_LANG_NATIVE;
  for (uint32_t n = r.map(); n > 0 && r.ok(); --n) {
    if (r.bytes() == "language") language = r.int32();
    else r.skip();
  }
  return language;
}

}  // namespace

Gateway::Gateway(JobId job, std::string session, std::string hello, Host* host)
    : job_(job), session_(std::move(session)), hello_(std::move(hello)), host_(host) {
  context_.id = random_id();
  context_.id.set_object_index(0);
  context_.origin = origin_of(context_.id);
}

Gateway::~Gateway() {
  if (thread_.joinable()) thread_.join();
}

Status Gateway::begin() {
  return start_thread(&thread_, "a thread of the relay", [this] { run(); });
}

void Gateway::end() {
  std::lock_guard lock(mutex_);
  over_ = true;
  wake_.notify_all();
}

void Gateway::post(std::function<void()> work, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  work_bytes_ += bytes;
  work_.push_back([this, bytes, work = std::move(work)] {
    work();
    if (bytes == 0) return;
    std::lock_guard again(mutex_);
    work_bytes_ -= bytes;
  });
  wake_.notify_one();
  if (work_bytes_ <= kMaxWork || over_) return;
  log(kLogError, "relay", "flooded", "nodes send more tasks of job %s than they may: it ends here", job_.hex().c_str());
  over_ = true;
}

// ---- the transport

void Gateway::on_record(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message) {
  if (r.kind != Kind::kResultRoom) return post([this, from, r, message] { take(from, r); }, r.size);
  std::lock_guard lock(mutex_);
  Lane* l = lane({from, r.lane});
  if (!l) return;
  l->under_way -= std::min(l->under_way, r.bytes_done);
  pump(l);
}

void Gateway::node_gone(const NodeId& node) {
  post([this, node] {
    std::vector<LaneKey> keys;
    {
      std::lock_guard lock(mutex_);
      for (auto& [key, l] : lanes_)
        if (key.first == node) keys.push_back(key);
    }
    for (const LaneKey& key : keys) end_lane(key);
    for (auto it = functions_.lower_bound({node, 0}); it != functions_.end() && it->first.first == node;) {
      const uint64_t key = (it++)->first.second;
      forget_function(node, key);
    }
    std::erase_if(definitions_, [&](const auto& d) { return d.first.first == node; });
  });
}

// ---- the thread

Status Gateway::start() {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  options.language = language_of(hello_);
  StartAs as;
  as.session = session_;
  as.hello = hello_;
  Status s;
  for (const int64_t until = steady_ns() + kSameJobNs; steady_ns() < until;) {
    s = Runtime::start(options, &as, &runtime_);
    if (s.code() != RAY_ALREADY_EXISTS) break;
    std::unique_lock lock(mutex_);
    if (wake_.wait_for(lock, kSameJobLook, [this] { return over_; })) break;
  }
  if (!s.ok()) return s;
  runtime_->set_relayed_user(this);
  runtime_->set_context(&context_);
  return Status();
}

void Gateway::run() {
  failure_ = start();
  if (!failure_.ok())
    log(kLogWarning, "relay", "no-gateway", "job %s of another node cannot run here: %s", job_.hex().c_str(),
        failure_.message().c_str());
  std::unique_lock lock(mutex_);
  while (!over_) {
    if (work_.empty() && !failure_.ok()) break;  // who asked has been told
    wake_.wait(lock, [this] { return over_ || !work_.empty(); });
    if (over_) break;
    auto work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
  over_ = true;
  std::vector<LaneKey> keys;
  for (auto& [key, l] : lanes_) keys.push_back(key);
  lock.unlock();
  for (const LaneKey& key : keys) lane_over(key, error(RAY_UNAVAILABLE, "the job has ended on that node"));
  if (runtime_) finish_up();
  host_->gateway_over(this);
}

// Its daemon kills what runs as soon as the driver has gone; the last ends come to ended().
void Gateway::finish_up() {
  for (auto& [key, known] : functions_)
    if (known.function) runtime_->function_release(known.function);
  (void)runtime_->shutdown(0);
  for (auto& [ticket, entry] : entries_) {
    if (entry.is_over && entry.end.error) entry.end.error->release();
    release(&entry);
  }
  delete runtime_;
}

void Gateway::take(const NodeId& from, const Record& r) {
  if (!runtime_) return r.kind == Kind::kLane ? lane_over({from, r.lane}, failure_) : void();
  switch (r.kind) {
    case Kind::kLane: return open_lane(from, r);
    case Kind::kFunction: return define(from, r);
    case Kind::kForget: return forget_function(from, r.key);
    default: break;
  }
  Lane* l;
  {
    std::lock_guard lock(mutex_);
    l = lane({from, r.lane});
  }
  if (!l) return;  // it has ended
  switch (r.kind) {
    case Kind::kUnlane: return end_lane(l->key);
    case Kind::kArgument: open_argument(l, r); break;
    case Kind::kArgumentPart: fill_argument(l, r); break;
    case Kind::kTask:
      if (task(l, r)) break;
      return lane_over({from, r.lane}, error(RAY_INVALID_ARGUMENT, "it has more tasks at a time than it may, or one twice"));
    case Kind::kCancel: cancel(l, r); break;
    case Kind::kRecall: recall(l); break;
    default: break;
  }
  if (is_counted(r.kind)) grant(l, r.size);
}

void Gateway::grant(Lane* l, uint64_t bytes) {
  l->to_grant += bytes;
  if (l->to_grant < kWindowBytes / 4) return;
  Record r;
  r.kind = Kind::kTaskRoom;
  r.bytes_done = std::exchange(l->to_grant, 0);
  send(l->key, r);
}

void Gateway::send(const LaneKey& key, const Record& r) {
  Record mine = r;
  mine.lane = key.second;
  std::string message;
  encode(mine, &message);
  host_->send(key.first, std::move(message));
}

// ---- lanes

// mutex_ held.
Gateway::Lane* Gateway::lane(const LaneKey& key) {
  auto it = lanes_.find(key);
  return it == lanes_.end() ? nullptr : it->second.get();
}

void Gateway::open_lane(const NodeId& from, const Record& r) {
  const LaneKey key{from, r.lane};
  if (Status s = runtime_->functions().check_language(r.language); !s.ok()) return lane_over(key, s);
  {
    std::lock_guard lock(mutex_);
    auto& l = lanes_[key];
    if (l) return;  // a number comes once
    l = std::make_unique<Lane>();
    l->key = key;
    l->resources = r.bytes;
  }
  Record open;
  open.kind = Kind::kLaneOpen;
  send(key, open);
}

// What runs for it is killed: nobody waits for it.
void Gateway::end_lane(const LaneKey& key) {
  std::unique_ptr<Lane> gone;
  std::vector<uint64_t> tags;
  {
    std::lock_guard lock(mutex_);
    auto it = lanes_.find(key);
    if (it == lanes_.end()) return;
    gone = std::move(it->second);
    lanes_.erase(it);
    for (auto& [number, ticket] : gone->tasks)
      if (auto e = entries_.find(ticket); e != entries_.end()) tags.push_back(e->second.tag);
  }
  for (uint64_t tag : tags) runtime_->cancel_relayed(tag, RAY_CANCEL_FORCE);
  drop_arguments(gone.get(), 0, true);
}

void Gateway::lane_over(const LaneKey& key, const Status& why) {
  Record r;
  r.kind = Kind::kLaneOver;
  r.code = why.code();
  r.bytes = why.message();
  send(key, r);
  end_lane(key);
}

// ---- functions

void Gateway::define(const NodeId& from, const Record& r) {
  const std::pair<NodeId, uint64_t> id{from, r.key};
  std::string& definition = definitions_[id];
  definition.append(r.bytes);
  const bool long_one = definition.size() > kMaxDefinition;
  if (r.more && !long_one) return;
  Known known;
  if (long_one) known.status = error(RAY_INVALID_ARGUMENT, "its definition is too long");
  else known.status = runtime_->functions().define(r.language, r.function_kind, std::string(r.name), definition, &known.function);
  if (known.function && known.function->key != r.key) {
    runtime_->function_release(known.function);
    known = {nullptr, error(RAY_INTERNAL, "its definition is not the one that its key stands for")};
  }
  definitions_.erase(id);
  forget_function(from, r.key);
  functions_[id] = known;
}

void Gateway::forget_function(const NodeId& from, uint64_t key) {
  auto it = functions_.find({from, key});
  if (it == functions_.end()) return;
  if (it->second.function) runtime_->function_release(it->second.function);
  functions_.erase(it);
}

// ---- ends

void Gateway::ended(std::vector<RelayedEnd> ends) {
  const bool node_died = runtime_->node_dead();  // that is no task's error: their lanes end
  if (node_died) end();
  for (const RelayedEnd& end : ends) {
    Entry entry;
    {
      std::lock_guard lock(mutex_);
      auto it = entries_.find(end.number);
      if (it == entries_.end()) continue;
      if (!it->second.submitted) {  // whoever submits it does the rest
        it->second.end = end;
        it->second.is_over = true;
        continue;
      }
      entry = std::move(it->second);
      entries_.erase(it);
    }
    entry.end = end;
    if (!node_died) {
      answer(end.number, std::move(entry), false);
      continue;
    }
    if (end.error) end.error->release();
    release(&entry);
  }
  std::lock_guard lock(mutex_);
  for (auto& [key, l] : lanes_) pump(l.get());
}

void Gateway::release(Entry* entry) {
  for (Object* o : entry->returns) runtime_->objects().release_handle(o);
  entry->returns.clear();
}

// Its objects become an answer. What has to be waited for, an object that lies on disk, is left to the own thread.
void Gateway::answer(uint64_t ticket, Entry entry, bool may_wait) {
  const RelayedEnd& end = entry.end;
  Outgoing out;
  out.number = entry.number;
  out.run_ns = end.run_ns;
  if (end.error) {
    const uint32_t flags = (end.died ? uint32_t{kDied} : 0) | (end.final ? uint32_t{kFinal} : 0);
    out.fail(end.error->code, end.error->message, flags);
    out.pieces[0].image =
        wire::pack_error(end.error->code, end.error->message, end.error->payload_format, end.error->payload);
  } else if (!gather(entry, may_wait, &out)) {
    {
      std::lock_guard lock(mutex_);
      entry.is_over = true;
      entries_[ticket] = std::move(entry);
    }
    return post([this, ticket] { answer_late(ticket); });
  }
  if (end.error) end.error->release();
  release(&entry);
  if (!end.returned) return send_out(entry.lane, std::move(out));
  Record r;
  r.kind = Kind::kReturned;
  r.number = entry.number;
  std::unique_lock lock(mutex_);
  Lane* l = lane(entry.lane);
  if (!l) return;
  l->tasks.erase(entry.number);
  lock.unlock();
  send(entry.lane, r);
}

void Gateway::answer_late(uint64_t ticket) {
  std::unique_lock lock(mutex_);
  auto it = entries_.find(ticket);
  Entry entry = std::move(it->second);
  entries_.erase(it);
  lock.unlock();
  const LaneKey key = entry.lane;
  answer(ticket, std::move(entry), true);
  lock.lock();
  if (Lane* l = lane(key)) pump(l);
}

// False: something of it is not at hand, and the caller may not wait.
bool Gateway::gather(const Entry& entry, bool may_wait, Outgoing* out) {
  for (size_t i = 0; i < entry.returns.size(); ++i) {
    Object* o = entry.returns[i];
    Outgoing::Piece p;
    p.given = true;
    ErrorBox* failure = nullptr;
    const Status s = runtime_->get(&o, 1, may_wait ? -1 : 0, &p.buffer, &failure);
    if (failure) {
      p.format = wire::kFmtError;
      p.image = wire::pack_error(failure->code, failure->message, failure->payload_format, failure->payload);
    } else if (s.code() == RAY_TIMED_OUT && !may_wait) {
      out->clear();
      return false;
    } else if (!s.ok()) {
      out->fail(s.code(), strprintf("%s: its result %zu cannot be read: %s", entry.about.c_str(), i, s.message().c_str()), 0);
      return true;
    } else {
      p.format = p.buffer.format;
    }
    const uint32_t n_refs = p.buffer.n_refs;
    const bool large = p.buffer.n_oob > kMaxBuffers;
    out->pieces.push_back(std::move(p));
    if (n_refs == 0 && !large) continue;
    out->fail(RAY_UNSUPPORTED,
              strprintf("%s ran on %s, and its result %zu %s: return the values themselves, or let it run on its own node "
                        "(ray_placement.node)",
                        entry.about.c_str(), host_->name_of(runtime_->node()).c_str(), i,
                        large ? "has more buffers than can travel"
                              : "contains references or actors, which do not travel between nodes yet"),
              kFinal);
    return true;
  }
  return true;
}

// The caller pumps.
void Gateway::send_out(const LaneKey& key, Outgoing out) {
  std::lock_guard lock(mutex_);
  Lane* l = lane(key);
  if (!l) return;
  l->tasks.erase(out.number);
  l->out.push_back(std::move(out));
}

// mutex_ held.
void Gateway::pump(Lane* l) {
  while (!l->out.empty() && l->under_way < kWindowBytes) {
    Record r;
    const bool last = l->out.front().next(l->key.second, &r);
    l->under_way += encode(r, &l->batch);
    if (last) l->out.pop_front();
    if (l->batch.size() < kBatch) continue;
    host_->send(l->key.first, std::move(l->batch));
    l->batch.clear();
  }
  if (l->batch.empty()) return;
  host_->send(l->key.first, std::move(l->batch));
  l->batch.clear();
}

}  // namespace ray::relay
