// See service.h.
#include "gcs/service.h"

#include <pthread.h>
#include <sys/stat.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "gcs/follower.h"
#include "gcs/journal.h"
#include "gcs/lock.h"
#include "libray/wire/cursor.h"
#include "gcs/query.h"
#include "gcs/schema.h"
#include "gcs/server.h"
#include "gcs/state_reader.h"
#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/net/nng_start.h"

namespace ray::gcs {
namespace {

constexpr size_t kMaxBatchBytes = 16u << 20;   // of one group commit
constexpr size_t kMaxEarly = 256;              // appends that arrived before their predecessor
constexpr size_t kMaxEarlyBytes = 64u << 20;
constexpr int64_t kRetryWritesNs = 100'000'000;
constexpr size_t kEvictRows = 20000;           // looked at after one batch

struct Answer {
  int32_t code = RAY_OK;
  std::string text, answer;
};
// A request in the batch that is being committed.
struct Work {
  Incoming in;
  Answer answer;
  bool wrote = false, held = false;  // held: answered later (poll, query, early append)
};

}  // namespace

class ServiceImpl final : public Service {
 public:
  explicit ServiceImpl(const ShardOptions& options)
      : options_(options), query_(database_path(options.dir, options.index)) {}
  ~ServiceImpl() override;
  Status recover();
  Status listen();

 private:
  // commit thread
  void run();
  void process(std::vector<Incoming> batch);
  void evaluate(Work* work);
  void evaluate_step(Work* work);
  void evaluate_append(Work* work);
  bool may_write();
  void commit(std::vector<Work>* works);
  void refuse(const Status& why, std::vector<Work>* works);
  void answer(Work* work);
  void after_commit(bool news);
  void retry_polls();
  void release_early(const NodeId& node);
  void release_throttled();
  void forget_pipes(const std::vector<uint32_t>& pipes);
  Status load(const Range& range, bool whole);
  void stats(Answer* out);
  // query thread
  void run_queries();

  void reply(const Incoming& in, const Answer& a) { server_->reply(in.slot, a.code, a.text, a.answer); }

  const ShardOptions options_;
  ShardLock lock_;
  Tables tables_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Follower> follower_;
  std::unique_ptr<StateReader> state_;
  std::unique_ptr<Server> server_;

  std::mutex mutex_;  // guards the queue and what is beside it
  std::condition_variable wake_;
  std::vector<Incoming> queue_;
  std::vector<uint32_t> gone_;
  bool stop_ = false, progress_ = false;
  std::thread thread_;

  // Commit thread only.
  std::vector<Entry> entries_;
  std::deque<std::string> records_;  // bytes that control entries point to
  std::vector<Incoming> polls_;
  std::map<std::pair<Id, uint64_t>, std::vector<Incoming>> early_;  // by node and first lsn
  std::vector<Incoming> throttled_, ready_;
  int64_t refused_at_ = 0;
  uint64_t lineage_records_ = 0, lineage_bytes_ = 0, commits_ = 0, operations_ = 0;

  std::mutex query_mutex_;
  std::condition_variable query_wake_;
  struct QueryWork {
    Incoming in;
    uint64_t sn;
  };
  std::deque<QueryWork> queries_;
  bool query_stop_ = false;
  Query query_;  // query thread only, but for stop()
  std::thread query_thread_;
};

// ---- start and end -------------------------------------------------------------------------------------------

Result<std::unique_ptr<Service>> Service::start(const ShardOptions& options) {
  ::mkdir(options.dir.c_str(), 0700);
  RAY_TRY(net::start_nng());
  auto s = std::make_unique<ServiceImpl>(options);
  RAY_TRY(s->recover());
  RAY_TRY(s->listen());
  return std::unique_ptr<Service>(std::move(s));
}

Status ServiceImpl::recover() {
  auto lock = ShardLock::take(options_.dir, options_.index);
  if (!lock.ok()) return lock.status();
  lock_ = std::move(*lock);
  auto m = Materialiser::open(options_.dir, options_.index);
  if (!m.ok()) return m.status();
  uint64_t sn = (*m)->watermark();
  auto state = StateReader::open(database_path(options_.dir, options_.index));
  if (!state.ok()) return state.status();
  state_ = std::move(*state);
  tables_.restore_sn(sn);
  RAY_TRY(state_->restore(&tables_, options_.ram_bytes / 2));
  auto replay = [&](const Entry& e) {
    if (e.kind == Entry::kControl) return tables_.recover(e.sn, e.blob);
    tables_.recover_lineage(e.sn, e.node, e.epoch, e.lsn + e.n - 1);
    return true;
  };
  auto j = Journal::open({options_.dir, options_.index, options_.segment_bytes}, sn, replay);
  if (!j.ok()) return j.status();
  journal_ = std::move(*j);
  auto progress = [this] {
    std::lock_guard guard(mutex_);
    progress_ = true;
    wake_.notify_one();
  };
  follower_ = std::make_unique<Follower>(std::move(*m), progress);
  RAY_TRY(follower_->started());
  return {};
}

Status ServiceImpl::listen() {
  // The threads must be there before the first request, and requests may come once it listens.
  Server::Options o;
  o.url = options_.url;
  o.token = options_.token;
  o.request = [this](const Incoming& in) {
    std::lock_guard guard(mutex_);
    queue_.push_back(in);
    if (queue_.size() == 1) wake_.notify_one();
  };
  o.gone = [this](uint32_t pipe) {
    std::lock_guard guard(mutex_);
    gone_.push_back(pipe);
    wake_.notify_one();
  };
  auto server = Server::listen(std::move(o));
  if (!server.ok()) return server.status();
  server_ = std::move(*server);
  RAY_TRY(start_thread(&thread_, "a thread of the control store", [this] { run(); }));
  pthread_setname_np(thread_.native_handle(), "gcs:commit");
  RAY_TRY(start_thread(&query_thread_, "a thread of the control store", [this] { run_queries(); }));
  pthread_setname_np(query_thread_.native_handle(), "gcs:query");
  return {};
}

ServiceImpl::~ServiceImpl() {
  {
    std::lock_guard guard(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  {
    std::lock_guard guard(query_mutex_);
    query_stop_ = true;
    query_.stop();
  }
  if (follower_) follower_->end_waits();
  query_wake_.notify_one();
  if (query_thread_.joinable()) query_thread_.join();
  server_.reset();
  if (!follower_) return;
  bool all = follower_->finish(journal_->last_sn(), journal_->segments(), options_.flush_ns);
  auto materialiser = follower_->end();
  materialiser->checkpoint();
  materialiser.reset();
  uint64_t last = journal_->last_sn();
  std::vector<JournalFile> segments = journal_->segments();
  journal_.reset();
  // Nothing is left to be read from the journal: leave only the database behind.
  if (all && options_.retain_bytes == 0 && last > 0)
    for (const JournalFile& f : segments) remove_segment(f.path);
}

// ---- commit thread ---------------------------------------------------------------------------------------------

void ServiceImpl::run() {
  std::unique_lock lock(mutex_);
  if (journal_->last_sn() > follower_->watermark()) {
    lock.unlock();
    follower_->follow(journal_->last_sn(), journal_->segments(), false);
    lock.lock();
  }
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !queue_.empty() || !gone_.empty() || progress_; });
    std::vector<Incoming> batch;
    std::vector<uint32_t> gone;
    batch.swap(queue_);
    gone.swap(gone_);
    bool progress = progress_, stop = stop_;
    progress_ = false;
    lock.unlock();
    if (!gone.empty()) forget_pipes(gone);
    if (progress) release_throttled();
    process(std::move(batch));
    while (!ready_.empty()) {
      std::vector<Incoming> next;
      next.swap(ready_);
      process(std::move(next));
    }
    lock.lock();
    if (stop && queue_.empty()) return;
  }
}

void ServiceImpl::process(std::vector<Incoming> batch) {
  for (size_t at = 0; at < batch.size();) {
    std::vector<Work> works;
    size_t bytes = 0;
    for (; at < batch.size() && bytes < kMaxBatchBytes; ++at) {
      bytes += batch[at].request.args.size();
      works.push_back({batch[at], {}});
      evaluate(&works.back());
    }
    commit(&works);
  }
}

bool ServiceImpl::may_write() {
  if (!tables_.refusing()) return true;
  int64_t now = steady_ns();
  if (now - refused_at_ < kRetryWritesNs) return false;
  refused_at_ = now;
  tables_.refuse_writes({});  // one batch may try
  return true;
}

void ServiceImpl::evaluate(Work* w) {
  may_write();
  ++operations_;
  const Request& q = w->in.request;
  if (q.op == kAppend) return evaluate_append(w);
  if (q.op == kStats) return stats(&w->answer);
  if (q.op == kQuery) {
    wire::Cursor r(q.args);
    r.array();
    if (is_database_query(r.bytes())) {
      w->held = true;
      {
        std::lock_guard guard(query_mutex_);
        queries_.push_back({w->in, tables_.last_sn()});
      }
      query_wake_.notify_one();
      return;
    }
  }
  evaluate_step(w);
}

void ServiceImpl::evaluate_step(Work* w) {
  std::vector<Range> loaded;
  for (;;) {
    Outcome out = tables_.step(w->in.request, wall_ns(), loaded);
    if (out.kind == Outcome::kPark) {
      w->held = true;
      polls_.push_back(w->in);
      return;
    }
    if (out.kind != Outcome::kDone) {
      bool whole = out.kind == Outcome::kNeedRange;
      Status s = load(out.need, whole);
      if (whole) loaded.push_back(out.need);
      if (s.ok()) continue;
      out = Outcome{};
      out.code = s.code();
      out.text = s.message();
    }
    w->answer = {out.code, std::move(out.text), std::move(out.answer)};
    if (out.sn == 0) return;
    w->wrote = true;
    records_.push_back(std::move(out.record));
    Entry e;
    e.sn = out.sn;
    e.blob = records_.back();
    entries_.push_back(e);
    return;
  }
}

void ServiceImpl::evaluate_append(Work* w) {
  AppendArgs a;
  if (!parse_append(w->in.request.args, &a) || (!a.blob.empty() && RAY_FAULT_FAILS("gcs.append.malformed"))) {
    w->answer = {RAY_INVALID_ARGUMENT, "malformed batch of lineage records", {}};
    return;
  }
  if (tables_.refusing()) {
    w->answer = {RAY_UNAVAILABLE, tables_.refusal(), {}};
    return;
  }
  if (journal_->bytes() > options_.backlog_bytes + options_.retain_bytes) {
    w->held = true;
    throttled_.push_back(w->in);
    return;
  }
  LineageOutcome out = tables_.append(a.node, a.epoch, a.lsn_from, a.n);
  wire::Writer answer(&w->answer.answer);
  answer.array(1).uint64(out.committed);
  switch (out.kind) {
    case LineageOutcome::kDuplicate: return;
    case LineageOutcome::kFenced:
      w->answer = {RAY_CONFLICT, "superseded: this node has a later epoch", {}};
      return;
    case LineageOutcome::kOverlap:
      w->answer.code = RAY_CONFLICT;
      w->answer.text = "overlap: part of the batch is committed";
      return;
    case LineageOutcome::kGap: {
      // Its predecessor overtakes it on another context, or is lost and sent again: wait for it.
      size_t bytes = w->in.request.args.size();
      for (auto& [at, list] : early_)
        for (const Incoming& in : list) bytes += in.request.args.size();
      if (early_.size() >= kMaxEarly || bytes > kMaxEarlyBytes) {
        w->answer.code = RAY_UNAVAILABLE;
        w->answer.text = "gap: too many batches wait for their predecessor";
        return;
      }
      w->held = true;
      early_[{a.node, a.lsn_from}].push_back(w->in);
      return;
    }
    case LineageOutcome::kAccepted: break;
  }
  w->wrote = true;
  Entry e;
  e.sn = out.sn;
  e.kind = Entry::kLineage;
  e.node = a.node;
  e.epoch = a.epoch;
  e.n = a.n;
  e.lsn = a.lsn_from;
  e.codec = static_cast<Codec>(a.codec);
  e.raw_size = a.raw_size;
  e.blob = a.blob;
  entries_.push_back(e);
  lineage_records_ += a.n;
  lineage_bytes_ += a.blob.size();
  if (!early_.empty()) release_early(a.node);
}

// Those whose predecessor may be there now.
void ServiceImpl::release_early(const NodeId& node) {
  auto it = early_.lower_bound({node, 0});
  if (it == early_.end() || it->first.first != node) return;
  for (const Incoming& in : it->second) ready_.push_back(in);
  early_.erase(it);
}

void ServiceImpl::commit(std::vector<Work>* works) {
  bool news = false;
  if (!entries_.empty()) {
    Status s = journal_->commit(entries_);
    if (!s.ok()) return refuse(s, works);
    ++commits_;
    news = tables_.commit();
  } else {
    tables_.commit();
  }
  entries_.clear();
  records_.clear();
  for (Work& w : *works) answer(&w);
  after_commit(news);
}

// The batch could not be written: it never happened. Reads are evaluated again, writes are told why.
void ServiceImpl::refuse(const Status& why, std::vector<Work>* works) {
  tables_.rollback();
  entries_.clear();
  records_.clear();
  refused_at_ = steady_ns();
  tables_.refuse_writes(strprintf("gcs shard %u cannot write its journal in %s (%s): free space or mend "
                                  "the disk; reads go on",
                                  options_.index, options_.dir.c_str(), why.message().c_str()));
  log(kLogError, "gcs", "journal-failed", "%s", tables_.refusal().c_str());
  for (Work& w : *works) {
    if (w.held) continue;
    w.answer = {};
    uint32_t op = w.in.request.op;
    if (op == kAppend) w.answer = {RAY_UNAVAILABLE, tables_.refusal(), {}};
    else if (op == kStats) stats(&w.answer);
    else evaluate_step(&w);
    answer(&w);
  }
  tables_.commit();  // nothing was changed
}

void ServiceImpl::answer(Work* w) {
  if (!w->held) reply(w->in, w->answer);
}

void ServiceImpl::after_commit(bool news) {
  if (news) retry_polls();
  if (journal_->last_sn() > follower_->watermark())
    follower_->follow(journal_->last_sn(), journal_->segments(),
                      journal_->bytes() > options_.backlog_bytes / 4);
  if (tables_.ram_bytes() > options_.ram_bytes)
    tables_.evict(follower_->watermark(), options_.ram_bytes / 10 * 9, kEvictRows);
}

void ServiceImpl::retry_polls() {
  std::vector<Incoming> polls;
  polls.swap(polls_);
  for (const Incoming& in : polls) {
    Work w{in, {}};
    evaluate_step(&w);
    answer(&w);
  }
}

void ServiceImpl::release_throttled() {
  journal_->drop_through(follower_->watermark(), options_.retain_bytes);
  if (tables_.ram_bytes() > options_.ram_bytes)
    tables_.evict(follower_->watermark(), options_.ram_bytes / 10 * 9, kEvictRows);
  if (throttled_.empty() || journal_->bytes() > options_.backlog_bytes + options_.retain_bytes) return;
  for (const Incoming& in : throttled_) ready_.push_back(in);
  throttled_.clear();
}

// The requests of ended connections that still wait: their slots go back to work.
void ServiceImpl::forget_pipes(const std::vector<uint32_t>& pipes) {
  auto forget = [&](std::vector<Incoming>* list) {
    std::erase_if(*list, [&](const Incoming& in) {
      for (uint32_t p : pipes)
        if (p == in.pipe) {
          server_->reply(in.slot, RAY_CANCELLED, "connection ended", {});
          return true;
        }
      return false;
    });
  };
  forget(&polls_);
  forget(&throttled_);
  for (auto it = early_.begin(); it != early_.end();) {
    forget(&it->second);
    it = it->second.empty() ? early_.erase(it) : std::next(it);
  }
}

Status ServiceImpl::load(const Range& range, bool whole) {
  return whole ? state_->load_range(&tables_, range) : state_->load_row(&tables_, range.table, range.first);
}

void ServiceImpl::stats(Answer* out) {
  const MaterialiseStats& m = follower_->materialiser().stats();
  const std::pair<const char*, uint64_t> all[] = {
      {"shard", options_.index}, {"last_sn", journal_->last_sn()},
      {"materialised_sn", follower_->watermark()}, {"ram_bytes", tables_.ram_bytes()},
      {"ram_rows", tables_.rows()}, {"journal_bytes", journal_->bytes()},
      {"segments", journal_->segments().size()}, {"lineage_records", lineage_records_},
      {"lineage_bytes", lineage_bytes_}, {"commits", commits_}, {"operations", operations_},
      {"clients", tables_.clients()}, {"polls", polls_.size()}, {"refusing", tables_.refusing()},
      {"materialised_records", m.records.load()}, {"materialised_rows", m.rows.load()},
      {"materialise_ns", m.busy_ns.load()}, {"damaged", m.damaged.load()}};
  wire::Writer w(&out->answer);
  w.array(1).map(std::size(all));
  for (auto& [name, value] : all) w.str(name).uint64(value);
}

// ---- query thread ------------------------------------------------------------------------------------------------

void ServiceImpl::run_queries() {
  std::unique_lock lock(query_mutex_);
  for (;;) {
    query_wake_.wait(lock, [&] { return query_stop_ || !queries_.empty(); });
    if (query_stop_) return;
    QueryWork work = queries_.front();
    queries_.pop_front();
    lock.unlock();
    wire::Cursor r(work.in.request.args);
    r.array_of(2);
    std::string_view what = r.bytes(), filter = r.value();
    Filter f;
    Answer a;
    if (!r.done() || !parse_filter(filter, &f)) {
      a = {RAY_INVALID_ARGUMENT, "a query has a name and a filter map", {}};
    } else {
      follower_->wait(work.sn, f.fresh_ms * 1000000);
      Status s = query_.run(what, filter, &a.answer);
      a.code = s.code();
      a.text = s.message();
    }
    reply(work.in, a);
    lock.lock();
  }
}

}  // namespace ray::gcs
