// See client.h. One req0 socket per shard; every request is an Exchange with an NNG context of its
// own.
//
// NNG sends a request again when its connection breaks, so a restarted shard gets all that was not
// answered; what the shard has done already it recognises by (client, seq) or by lsn. NNG 1.5.2
// sometimes does not notice that a connection broke, and then never dials again (see net/nng_close.h);
// so a watch per shard pings while anything waits, and a link that does not answer is given a new
// socket, over which everything unanswered is sent again. A socket is closed after the last of its
// contexts: NNG 1.5.2 panics when both happen at once. Locks: one per shard, never held while a
// callback runs or a frame is sent.
#include "gcs/client.h"

#include <lz4.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <set>

#include "gcs/frame.h"
#include "gcs/journal.h"
#include "libray/wire/cursor.h"
#include "gcs/ops.h"
#include "libray/lineage/delta.h"
#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/net/nng_close.h"
#include "libray/net/nng_start.h"

namespace ray::gcs {
namespace {

constexpr size_t kMaxCalls = 128;        // in flight per shard; more wait in order
constexpr size_t kLineageWindow = 4;     // batches in flight per shard
constexpr size_t kJoinBytes = 1u << 20;  // batches are joined up to this size
constexpr size_t kMaxAppend = 32u << 20;
constexpr uint32_t kMaxAppendRecords = 1u << 30;
constexpr nng_duration kResendMs = 30000;  // on a connection that is alive but silent
constexpr nng_duration kPollResendMs =
    3600000;                            // the same for polls; NNG sends nothing again without it
constexpr nng_duration kRetryMs = 100;  // after a refusal
constexpr nng_duration kReconnectMinMs = 10, kReconnectMaxMs = 500;

struct Reply {
  int32_t code = RAY_INTERNAL;
  std::string_view text, answer;
};
class Exchange;
struct ShardLink;
using Replied = std::function<void(Exchange*, const Reply&)>;
const Reply kClosed = {RAY_CANCELLED, "gcs client is closed", {}};
using Slept = std::function<void(Exchange*, bool closed)>;

// Shared by its link while that is the present one, and by every exchange with a context on it.
struct Socket {
  nng_socket id = NNG_SOCKET_INITIALIZER;
  bool open = false;
  Socket() = default;
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (open) net::abandon_socket(id);
  }
  void close() {
    open = false;
    net::close_socket(id);
  }
};

// One request at a time over one context of the link's present socket. NNG's threads.
class Exchange {
 public:
  Exchange(ShardLink* link, bool is_poll) : link_(link), is_poll_(is_poll) {}
  ~Exchange() {
    if (aio_) nng_aio_free(aio_);
    if (pause_) nng_aio_free(pause_);
  }
  bool open();  // under the link's lock
  void send(std::string_view head, std::string_view middle, std::string_view tail,
            nng_duration timeout, Replied replied) {
    replied_ = std::move(replied);
    deadline_ = timeout < 0 ? INT64_MAX : steady_ns() + int64_t{timeout} * 1'000'000;
    if (nng_msg_alloc(&kept_, 0) != 0 || nng_msg_append(kept_, head.data(), head.size()) != 0 ||
        nng_msg_append(kept_, middle.data(), middle.size()) != 0 ||
        nng_msg_append(kept_, tail.data(), tail.size()) != 0)
      return finish({RAY_OUT_OF_MEMORY, "no memory for a gcs request", {}});
    transmit();
  }
  // Calls `then` later, on an NNG thread.
  void sleep(nng_duration ms, Slept then) {
    slept_ = std::move(then);
    nng_sleep_aio(ms, pause_);
  }
  // The link has another socket: what is under way is sent again over it. Any thread.
  void move() { nng_aio_abort(aio_, NNG_ECANCELED); }
  // Gives up the context, and the socket if it was the last. Nothing is under way; under the link's lock.
  void detach() {
    if (socket_) nng_ctx_close(ctx_);
    socket_.reset();
  }
  // Ends what is under way, and everything that would follow; its callback has run when this
  // returns.
  void stop() {
    stopped_ = true;
    nng_aio_stop(aio_);
    nng_aio_stop(pause_);
    // What was begun after the stop NNG does not answer; its message is still ours.
    if (slept_)
      wake();
    else if (replied_ && state_ == kSending)
      nng_msg_free(nng_aio_get_msg(aio_));
    finish(kClosed);
  }

 private:
  static void on_event(void* self) { static_cast<Exchange*>(self)->advance(); }
  static void on_pause(void* self) { static_cast<Exchange*>(self)->wake(); }
  bool attach(uint32_t* generation);
  bool attach_locked();
  void follow(uint32_t generation);
  // Sends a copy of the request; the request itself is kept for a change of the socket.
  void transmit() {
    nng_msg* copy = nullptr;
    if (!attach(&generation_)) return finish(kClosed);
    if (nng_msg_dup(&copy, kept_) != 0)
      return finish({RAY_OUT_OF_MEMORY, "no memory for a gcs request", {}});
    state_ = kSending;
    set_timeout();
    nng_aio_set_msg(aio_, copy);
    const uint32_t generation = generation_;
    nng_ctx_send(ctx_, aio_);
    follow(generation);
  }
  void set_timeout() {
    int64_t left = deadline_ == INT64_MAX ? 0 : (deadline_ - steady_ns()) / 1'000'000;
    nng_aio_set_timeout(aio_, deadline_ == INT64_MAX
                                  ? NNG_DURATION_INFINITE
                                  : static_cast<nng_duration>(std::max<int64_t>(left, 0)));
  }
  void advance() {
    int rv = nng_aio_result(aio_);
    if (rv != 0) {
      if (state_ == kSending) nng_msg_free(nng_aio_get_msg(aio_));
      if (rv == NNG_ETIMEDOUT)
        return finish({RAY_TIMED_OUT, "gcs shard did not answer in time", {}});
      bool lost = rv == NNG_ECANCELED || rv == NNG_ECLOSED;  // the socket, by reconnect
      return lost && !stopped_ ? transmit() : finish(kClosed);
    }
    if (state_ == kSending) {
      state_ = kReceiving;
      set_timeout();
      const uint32_t generation = generation_;
      nng_ctx_recv(ctx_, aio_);
      return follow(generation);
    }
    nng_msg* msg = nng_aio_get_msg(aio_);
    Reply r;
    std::string_view bytes(static_cast<const char*>(nng_msg_body(msg)), nng_msg_len(msg));
    if (!parse_reply(bytes, &r.code, &r.text, &r.answer))
      r = {RAY_INTERNAL, "a gcs shard's reply is malformed", {}};
    heard();
    finish(r);
    nng_msg_free(msg);
  }
  void heard();
  void wake() {
    auto then = std::move(slept_);
    slept_ = nullptr;
    then(this, stopped_);
  }
  void finish(const Reply& r) {
    if (kept_) nng_msg_free(kept_);
    kept_ = nullptr;
    auto replied = std::move(replied_);
    replied_ = nullptr;
    if (replied) replied(this, r);
  }

  ShardLink* link_;
  bool is_poll_;
  nng_ctx ctx_ = NNG_CTX_INITIALIZER;
  std::shared_ptr<Socket> socket_;  // that ctx_ belongs to
  uint32_t generation_ = 0;         // of the socket that the last transmission went over
  nng_aio* aio_ = nullptr;
  nng_aio* pause_ =
      nullptr;  // of its own: in NNG 1.5.2 an aio that slept once calls a timeout a success
  nng_msg* kept_ = nullptr;
  int64_t deadline_ = INT64_MAX;
  std::atomic<bool> stopped_{false};
  enum { kSending, kReceiving } state_ = kSending;
  Replied replied_;
  Slept slept_;
};

struct Batch {  // of lineage, as one journal entry
  std::string blob;  // streams of differences, joined, until send_batch finds that LZ4 packs better
  uint64_t raw_size = 0;
  uint32_t n = 0;
  std::vector<Client::Appended> done;
  // Set when it is sent.
  uint64_t lsn_from = 0;
  std::string head;
  Status refused;  // why the shard will not have it: its numbers are sent without the records
};
struct Waiting {
  uint32_t op;
  std::string args;
  Client::Answered done;
};
struct Subscription {
  std::string table, prefix;
  Client::Changed changed;
  uint64_t since = 0;
  std::set<std::string> keys;  // that were delivered and exist
};

struct ShardLink {
  uint32_t index = 0;
  std::string url;
  std::mutex mutex;
  std::shared_ptr<Socket> socket;
  std::atomic<uint32_t> generation{0};  // counts the sockets; changed under the lock
  std::atomic<uint64_t> answers{0};  // heard on this link
  std::mutex moving;                 // held while a new socket is put in place; before `mutex`
  std::vector<std::unique_ptr<Exchange>> exchanges;  // all that were ever made
  std::vector<Exchange*> idle;
  uint64_t next_seq = 1;
  std::set<uint64_t> unanswered;
  std::deque<Waiting> waiting;
  size_t calls = 0;
  size_t polls = 0;
  // Lineage. next_lsn 0: not known yet; the shard is asked first.
  std::deque<std::shared_ptr<Batch>> batches;
  size_t appends = 0;
  std::set<uint64_t> under_way;  // the first numbers of these
  uint64_t next_lsn = 0;
  bool asked = false;
  bool closing = false;
};

Status dial(const std::string& url, std::shared_ptr<Socket>* out) {
  auto s = std::make_shared<Socket>();
  int rv = nng_req0_open(&s->id);
  if (rv == 0) {
    s->open = true;
    nng_socket_set_size(s->id, NNG_OPT_RECVMAXSZ, kMaxFrame);
    nng_socket_set_ms(s->id, NNG_OPT_RECONNMINT, kReconnectMinMs);
    nng_socket_set_ms(s->id, NNG_OPT_RECONNMAXT, kReconnectMaxMs);
    rv = nng_dial(s->id, url.c_str(), nullptr, NNG_FLAG_NONBLOCK);
  }
  if (rv == 0) {
    *out = std::move(s);
    return {};
  }
  return error(RAY_UNAVAILABLE, "cannot reach gcs shard at %s: %s", url.c_str(), nng_strerror(rv));
}

bool Exchange::open() {
  return nng_aio_alloc(&aio_, on_event, this) == 0 && nng_aio_alloc(&pause_, on_pause, this) == 0 &&
         attach_locked();
}

bool Exchange::attach(uint32_t* generation) {
  std::lock_guard lock(link_->mutex);
  *generation = link_->generation;
  return attach_locked();
}

// A context on the present socket; false when there is none any more.
bool Exchange::attach_locked() {
  if (socket_ && socket_ == link_->socket) return true;
  detach();
  if (!link_->socket || nng_ctx_open(&ctx_, link_->socket->id) != 0) return false;
  socket_ = link_->socket;
  nng_ctx_set_ms(ctx_, NNG_OPT_REQ_RESENDTIME, is_poll_ ? kPollResendMs : kResendMs);
  return true;
}

// Something was begun over the socket of this generation. If that was replaced meanwhile, move() came too
// early for it. (Should it have ended by now, this at worst sends the next request twice.)
void Exchange::follow(uint32_t generation) {
  if (link_->generation.load() != generation) move();
}

void Exchange::heard() { link_->answers.fetch_add(1, std::memory_order_relaxed); }

class ClientImpl final : public Client {
 public:
  explicit ClientImpl(const ClientOptions& options) : options_(options) {}
  ~ClientImpl() override;
  Status open();
  uint32_t shards() const override { return static_cast<uint32_t>(links_.size()); }
  void append_lineage(uint32_t shard, std::string records, uint32_t n, Appended done) override;
  void append_coded(uint32_t shard, std::string stream, uint64_t raw_size, uint32_t n, Appended done) override;
  uint64_t lineage_backlog() const override { return backlog_.load(); }
  void call(uint32_t shard, uint32_t op, std::string args, Answered done) override;
  void subscribe(uint32_t shard, const std::string& table, const std::string& prefix,
                 Changed changed) override;
  void reconnect(uint32_t shard) override;

 private:
  void watch(ShardLink* link, Exchange* x, uint64_t answers);
  Exchange* take(ShardLink* link, bool is_poll = false);
  void send_call(ShardLink* link, Exchange* x, Waiting w);
  void ask_lsn(ShardLink* link);
  void pump(ShardLink* link);
  void send_batch(ShardLink* link, Exchange* x, std::shared_ptr<Batch> b);
  void batch_replied(ShardLink* link, Exchange* x, std::shared_ptr<Batch> b, const Reply& r);
  void finish_batch(ShardLink* link, Exchange* x, Batch* b, const Status& s, uint64_t committed);
  void send_gap(Exchange* x, uint64_t from, uint32_t n, Replied replied);
  void close_gap(ShardLink* link);
  void poll(Exchange* x, std::shared_ptr<Subscription> s);
  static bool deliver(Subscription* s, std::string_view answer);
  static nng_duration ms_of(int64_t ns) {
    return ns < 0 ? NNG_DURATION_INFINITE : static_cast<nng_duration>(ns / 1000000 + 1);
  }

  ClientOptions options_;
  uint64_t id_ = 0;
  std::vector<std::unique_ptr<ShardLink>> links_;
  std::atomic<uint64_t> backlog_{0};
};

}  // namespace

// ---- opening and closing
// ----------------------------------------------------------------------------------

Result<std::unique_ptr<Client>> Client::connect(const ClientOptions& options) {
  auto c = std::make_unique<ClientImpl>(options);
  RAY_TRY(c->open());
  return std::unique_ptr<Client>(std::move(c));
}

namespace {

Status ClientImpl::open() {
  if (options_.urls.empty()) return error(RAY_INVALID_ARGUMENT, "no gcs shard was given");
  RAY_TRY(net::start_nng());
  while (id_ == 0) (void)!::getrandom(&id_, sizeof id_, 0);
  for (const std::string& url : options_.urls) {
    links_.push_back(std::make_unique<ShardLink>());
    ShardLink* link = links_.back().get();
    link->index = static_cast<uint32_t>(links_.size() - 1);
    link->url = url;
    RAY_TRY(dial(url, &link->socket));
    Exchange* x = nullptr;
    {
      std::lock_guard lock(link->mutex);
      x = take(link, true);
    }
    if (!x) return error(RAY_OUT_OF_MEMORY, "no memory for a connection to %s", url.c_str());
    watch(link, x, 0);
  }
  return {};
}

ClientImpl::~ClientImpl() {
  for (auto& link : links_) {
    std::vector<Exchange*> all;
    std::deque<Waiting> waiting;
    std::deque<std::shared_ptr<Batch>> batches;
    {
      std::lock_guard lock(link->mutex);
      link->closing = true;
    }
    { std::lock_guard moving(link->moving); }  // a change of the socket under way is through
    {
      std::lock_guard lock(link->mutex);
      for (auto& x : link->exchanges) all.push_back(x.get());
      waiting.swap(link->waiting);
      batches.swap(link->batches);
    }
    for (Exchange* x : all) x->stop();
    for (Exchange* x : all)
      x->stop();  // again: a callback of one may have begun something on another
    std::shared_ptr<Socket> last;
    {
      std::lock_guard lock(link->mutex);
      for (Exchange* x : all) x->detach();
      last = std::move(link->socket);
    }
    if (last) last->close();
    Status closed = error(RAY_CANCELLED, "gcs client is closed");
    for (Waiting& w : waiting) w.done(closed, {});
    for (auto& b : batches)
      for (auto& done : b->done) done(closed, 0);
  }
}

// Under the link's lock. Null when closing or out of memory.
Exchange* ClientImpl::take(ShardLink* link, bool is_poll) {
  if (link->closing) return nullptr;
  if (!is_poll && !link->idle.empty()) {
    Exchange* x = link->idle.back();
    link->idle.pop_back();
    return x;
  }
  auto x = std::make_unique<Exchange>(link, is_poll);
  if (!x->open()) return nullptr;
  link->exchanges.push_back(std::move(x));
  return link->exchanges.back().get();
}

// ---- a connection that does not answer
// ------------------------------------------------------------------------

// Looks at the link from time to time, on an exchange of its own. `answers`: how many had come at
// the last look.
void ClientImpl::watch(ShardLink* link, Exchange* x, uint64_t answers) {
  x->sleep(ms_of(options_.watch_ns), [this, link, answers](Exchange* self, bool closed) {
    if (closed) return;
    bool waits;
    {
      std::lock_guard lock(link->mutex);
      waits = link->calls + link->appends + link->polls > 0;
    }
    uint64_t now = link->answers.load(std::memory_order_relaxed);
    if (!waits || now != answers) return watch(link, self, now);
    std::string args;
    wire::Writer(&args).array(0);
    self->send(request_head(options_.token, 0, 0, 0, kPing), args, {}, ms_of(options_.ping_ns),
               [this, link](Exchange* again, const Reply& r) {
                 if (r.code == RAY_TIMED_OUT) reconnect(link->index);
                 if (r.code == RAY_OK) close_gap(link);
                 if (r.code != RAY_CANCELLED) watch(link, again, link->answers.load());
               });
  });
}

void ClientImpl::reconnect(uint32_t shard) {
  if (shard >= links_.size()) return;
  ShardLink* link = links_[shard].get();
  std::lock_guard moving(link->moving);
  std::shared_ptr<Socket> fresh, old;
  std::vector<Exchange*> all;
  {
    std::lock_guard lock(link->mutex);
    if (link->closing || !dial(link->url, &fresh).ok()) return;
    old = std::exchange(link->socket, std::move(fresh));
    ++link->generation;
    for (auto& x : link->exchanges) all.push_back(x.get());
    for (Exchange* x : link->idle) x->detach();
  }
  for (Exchange* x : all) x->move();
}

// ---- calls
// --------------------------------------------------------------------------------------------------

void ClientImpl::call(uint32_t shard, uint32_t op, std::string args, Answered done) {
  if (shard >= links_.size())
    return done(error(RAY_INVALID_ARGUMENT, "there is no gcs shard %u", shard), {});
  ShardLink* link = links_[shard].get();
  Waiting w{op, std::move(args), std::move(done)};
  Exchange* x = nullptr;
  {
    std::lock_guard lock(link->mutex);
    if (link->calls >= kMaxCalls && !link->closing) {
      link->waiting.push_back(std::move(w));
      return;
    }
    x = take(link);
    if (x) ++link->calls;
  }
  if (!x) return w.done(error(RAY_CANCELLED, "gcs client is closed"), {});
  send_call(link, x, std::move(w));
}

void ClientImpl::send_call(ShardLink* link, Exchange* x, Waiting w) {
  uint64_t seq, ack_below;
  {
    std::lock_guard lock(link->mutex);
    seq = link->next_seq++;
    link->unanswered.insert(seq);
    ack_below = *link->unanswered.begin();
  }
  std::string head = request_head(options_.token, id_, seq, ack_below, w.op);
  auto replied = [this, link, seq, done = std::move(w.done)](Exchange* self, const Reply& r) {
    Waiting next{};
    bool more = false;
    {
      std::lock_guard lock(link->mutex);
      link->unanswered.erase(seq);
      more = !link->waiting.empty() && !link->closing;
      if (more) {
        next = std::move(link->waiting.front());
        link->waiting.pop_front();
      }
    }
    std::string answer(r.answer);
    Status s = r.code == RAY_OK ? Status() : Status(r.code, std::string(r.text));
    if (more) {
      send_call(link, self, std::move(next));
    } else {
      std::lock_guard lock(link->mutex);
      --link->calls;
      link->idle.push_back(self);
    }
    done(std::move(s), std::move(answer));
  };
  x->send(head, w.args, {}, ms_of(options_.timeout_ns), std::move(replied));
}

// ---- lineage
// -------------------------------------------------------------------------------------------------

void ClientImpl::append_lineage(uint32_t shard, std::string records, uint32_t n, Appended done) {
  lineage::DeltaEncoder coder;
  if (records.size() > kMaxAppend || n == 0 || !coder.add_batch(records))
    return done(error(RAY_INVALID_ARGUMENT, "no lineage records, or more than 32 MiB of them"), 0);
  append_coded(shard, coder.take(), records.size(), n, std::move(done));
}

void ClientImpl::append_coded(uint32_t shard, std::string stream, uint64_t raw_size, uint32_t n, Appended done) {
  if (shard >= links_.size() || raw_size > kMaxAppend || n == 0 || n > kMaxAppendRecords)
    return done(error(RAY_INVALID_ARGUMENT, "no such gcs shard, or more than 32 MiB of lineage"),
                0);
  ShardLink* link = links_[shard].get();
  bool closing;
  {
    std::lock_guard lock(link->mutex);
    closing = link->closing;
    if (!closing) {
      backlog_ += raw_size;
      if (!link->batches.empty() && link->batches.back()->raw_size + raw_size <= kJoinBytes) {
        link->batches.back()->blob.append(stream);
      } else {
        link->batches.push_back(std::make_shared<Batch>());
        link->batches.back()->blob = std::move(stream);
      }
      Batch* b = link->batches.back().get();
      b->raw_size += raw_size;
      b->n += n;
      b->done.push_back(std::move(done));
    }
  }
  if (closing) return done(error(RAY_CANCELLED, "gcs client is closed"), 0);
  pump(link);
}

// A new client of an old journal goes on where the shard says it ends.
void ClientImpl::ask_lsn(ShardLink* link) {
  std::string args;
  wire::Writer(&args).array(2).id(options_.node).uint64(options_.node_epoch);
  call(link->index, kHello, std::move(args), [this, link](Status s, std::string answer) {
    wire::Cursor r(answer);
    r.array_of(1);
    uint64_t committed = r.uint64();
    Exchange* x = nullptr;
    {
      std::lock_guard lock(link->mutex);
      link->asked = false;
      if (s.ok() && r.ok())
        link->next_lsn = committed + 1;
      else if (link->closing || s.code() == RAY_CANCELLED || !(x = take(link)))
        return;
      link->asked = x != nullptr;
    }
    if (!x) return pump(link);
    x->sleep(kRetryMs, [this, link](Exchange* self, bool closed) {
      {
        std::lock_guard lock(link->mutex);
        link->asked = false;
        link->idle.push_back(self);
      }
      if (!closed) pump(link);
    });
  });
}

// Sends what may be sent. Called after every change of the queue or the window.
void ClientImpl::pump(ShardLink* link) {
  for (;;) {
    std::shared_ptr<Batch> b;
    Exchange* x = nullptr;
    bool ask = false;
    {
      std::lock_guard lock(link->mutex);
      if (link->batches.empty() || link->appends >= kLineageWindow || link->closing || link->asked)
        return;
      if (link->next_lsn == 0) {
        ask = link->asked = true;
      } else {
        x = take(link);
        if (!x) return;
        b = std::move(link->batches.front());
        link->batches.pop_front();
        ++link->appends;
        b->lsn_from = link->next_lsn;
        link->under_way.insert(b->lsn_from);
        link->next_lsn += b->n;
      }
    }
    if (ask) return ask_lsn(link);
    send_batch(link, x, std::move(b));
  }
}

// Records of no-op tasks shrink to a tenth as differences; those with arguments of their own pack better.
static Codec repack(std::string* blob, uint64_t raw_size) {
  std::string records;
  if (blob->size() < raw_size / 4 || !lineage::delta_decode(*blob, raw_size, &records)) return Codec::kDelta;
  int size = static_cast<int>(records.size());
  blob->resize(static_cast<size_t>(LZ4_compressBound(size)));
  int n = LZ4_compress_default(records.data(), blob->data(), size, static_cast<int>(blob->size()));
  if (n > 0 && n < size) {
    blob->resize(static_cast<size_t>(n));
    return Codec::kLz4;
  }
  *blob = std::move(records);
  return Codec::kNone;
}

void ClientImpl::send_batch(ShardLink* link, Exchange* x, std::shared_ptr<Batch> b) {
  if (b->head.empty()) {
    AppendArgs a;
    a.node = options_.node;
    a.epoch = options_.node_epoch;
    a.lsn_from = b->lsn_from;
    a.n = b->n;
    a.raw_size = b->raw_size;
    a.codec = static_cast<uint32_t>(repack(&b->blob, b->raw_size));
    b->head = request_head(options_.token, 0, 0, 0, kAppend) + append_head(a, b->blob.size());
  }
  x->send(b->head, b->blob, {}, NNG_DURATION_INFINITE,
          [this, link, b](Exchange* self, const Reply& r) { batch_replied(link, self, b, r); });
}

void ClientImpl::batch_replied(ShardLink* link, Exchange* x, std::shared_ptr<Batch> b,
                               const Reply& r) {
  wire::Cursor answer(r.answer);
  answer.array_of(1);
  uint64_t committed = answer.uint64();
  if (r.code == RAY_OK && answer.ok()) return finish_batch(link, x, b.get(), b->refused, committed);
  if (r.code == RAY_CANCELLED || r.code == RAY_CONFLICT)
    return finish_batch(link, x, b.get(), Status(r.code, std::string(r.text)), committed);
  if (r.code == RAY_INVALID_ARGUMENT && b->refused.ok()) {
    // The shard takes what follows only behind these numbers.
    b->refused = Status(r.code, std::string(r.text));
    return send_gap(x, b->lsn_from, b->n,
                    [this, link, b](Exchange* self, const Reply& again) { batch_replied(link, self, b, again); });
  }
  b->refused = {};  // not even that: it is no fault of this batch
  // The shard cannot write now. Lineage is not lost for that: again, in a while.
  x->sleep(kRetryMs, [this, link, b](Exchange* self, bool closed) {
    if (closed)
      return finish_batch(link, self, b.get(), error(RAY_CANCELLED, "gcs client is closed"), 0);
    send_batch(link, self, b);
  });
}

// Numbers without records. At most kMaxAppendRecords of them.
void ClientImpl::send_gap(Exchange* x, uint64_t from, uint32_t n, Replied replied) {
  AppendArgs a;
  a.node = options_.node;
  a.epoch = options_.node_epoch;
  a.lsn_from = from;
  a.n = n;
  std::string head = request_head(options_.token, 0, 0, 0, kAppend) + append_head(a, 0);
  x->send(head, {}, {}, NNG_DURATION_INFINITE, std::move(replied));
}

// Appends wait and nothing comes: it may be that the shard has lost what it had (a journal that was cut). It holds
// everything back until the numbers between are there.
void ClientImpl::close_gap(ShardLink* link) {
  uint64_t lowest;
  {
    std::lock_guard lock(link->mutex);
    if (link->under_way.empty() || link->closing) return;
    lowest = *link->under_way.begin();  // all below were answered
  }
  std::string args;
  wire::Writer(&args).array(2).id(options_.node).uint64(options_.node_epoch);
  call(link->index, kHello, std::move(args), [this, link, lowest](Status s, std::string answer) {
    wire::Cursor r(answer);
    r.array_of(1);
    const uint64_t next = r.uint64() + 1;
    Exchange* x = nullptr;
    {
      std::lock_guard lock(link->mutex);
      if (s.ok() && r.ok() && next < lowest) x = take(link);
    }
    if (!x) return;
    log(kLogError, "gcs", "lineage-lost", "shard %u has lost the records %llu to %llu of this node's journal", link->index,
        static_cast<unsigned long long>(next), static_cast<unsigned long long>(lowest - 1));
    send_gap(x, next, static_cast<uint32_t>(std::min<uint64_t>(lowest - next, kMaxAppendRecords)),
             [link](Exchange* self, const Reply&) {
               std::lock_guard lock(link->mutex);
               link->idle.push_back(self);
             });
  });
}

void ClientImpl::finish_batch(ShardLink* link, Exchange* x, Batch* b, const Status& s,
                              uint64_t committed) {
  {
    std::lock_guard lock(link->mutex);
    --link->appends;
    link->under_way.erase(b->lsn_from);
    link->idle.push_back(x);
  }
  backlog_ -= b->raw_size;
  for (auto& done : b->done) done(s, committed);
  pump(link);
}

// ---- subscriptions
// ---------------------------------------------------------------------------------------------

void ClientImpl::subscribe(uint32_t shard, const std::string& table, const std::string& prefix,
                           Changed changed) {
  if (shard >= links_.size()) return;
  auto s = std::make_shared<Subscription>();
  s->table = table;
  s->prefix = prefix;
  s->changed = std::move(changed);
  Exchange* x;
  {
    std::lock_guard lock(links_[shard]->mutex);
    x = take(links_[shard].get(), true);
    if (x) ++links_[shard]->polls;
  }
  if (x) poll(x, std::move(s));
}

// A poll waits at the shard until there is news; it is sent again when the shard starts anew.
void ClientImpl::poll(Exchange* x, std::shared_ptr<Subscription> s) {
  std::string head = request_head(options_.token, 0, 0, 0, kPoll), args;
  wire::Writer(&args).array(2).uint64(s->since).array(1).array(2).str(s->table).bin(s->prefix);
  x->send(head, args, {}, NNG_DURATION_INFINITE, [this, s](Exchange* self, const Reply& r) {
    if (r.code == RAY_CANCELLED) return;
    bool good = r.code == RAY_OK && deliver(s.get(), r.answer);
    self->sleep(good ? 0 : kRetryMs, [this, s](Exchange* again, bool closed) {
      if (!closed) poll(again, s);
    });
  });
}

bool ClientImpl::deliver(Subscription* s, std::string_view answer) {
  wire::Cursor r(answer);
  r.array_of(3);
  uint64_t sn = r.uint64();
  bool snapshot = r.boolean();
  size_t n = r.array();
  std::set<std::string> gone;
  if (snapshot) gone = s->keys;
  for (; n > 0 && r.ok(); --n) {
    r.array_of(4);
    uint64_t at = r.uint64();
    r.bytes();
    std::string key(r.bytes()), value(r.bytes());
    if (!r.ok()) break;
    gone.erase(key);
    if (value.empty())
      s->keys.erase(key);
    else
      s->keys.insert(key);
    s->changed(at, std::move(key), std::move(value));
  }
  if (!r.ok()) return false;
  for (const std::string& key : gone) {
    s->keys.erase(key);
    s->changed(sn, key, {});
  }
  s->since = sn;
  return true;
}

}  // namespace
}  // namespace ray::gcs
