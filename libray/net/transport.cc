// See transport.h.
#include "libray/net/transport.h"

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <sys/random.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/net/nng_start.h"
#include "libray/net/stream.h"

namespace ray::net {

namespace {

constexpr nng_duration kDialMs = 5000;
constexpr int64_t kLastWordsNs = 200'000'000;  // at the end, for urgent messages to arrive
constexpr int64_t kAcceptAgainNs = 200'000'000;  // after an error of accept: no descriptors, for example

bool is_tls(const std::string& url) { return url.rfind("tls+", 0) == 0; }

Status nng_error(ray_code code, const std::string& what, int rv) {
  return error(code, "%s: %s", what.c_str(), nng_strerror(rv));
}

uint64_t random_word() {
  uint64_t word;
  if (::getrandom(&word, sizeof word, 0) != sizeof word) __builtin_trap();  // no proof may be made without it
  return word;
}

class TransportImpl;

// A dial that is under way, or its result.
struct Dialler {
  TransportImpl* transport = nullptr;
  Target target = 0;
  uint64_t number = 0;  // of all dials: a target may be dialled anew while an older one is under way
  bool taken = false;  // its stream has another owner
  nng_stream_dialer* dialer = nullptr;
  nng_aio* aio = nullptr;
  ~Dialler() {
    if (dialer) nng_stream_dialer_close(dialer);
    if (aio) {
      nng_aio_stop(aio);
      void* stream = nng_aio_result(aio) == 0 && !taken ? nng_aio_get_output(aio, 0) : nullptr;
      if (stream) nng_stream_free(static_cast<nng_stream*>(stream));  // it came when the transport was about to end
      nng_aio_free(aio);
    }
    if (dialer) nng_stream_dialer_free(dialer);
  }
};

class TransportImpl final : public Transport, private Stream::Owner {
 public:
  TransportImpl(TransportOptions options, User* user)
      : options_(std::move(options)), user_(user),
        endpoint_(options_.self, options_.token, random_word, options_.endpoint) {}
  ~TransportImpl() override;
  Status open();

  const std::string& address() const override { return address_; }
  void dial(Target target, std::string address, uint32_t channel) override {
    post([this, target, address = std::move(address), channel](Actions* out) {
      endpoint_.dial(target, address, channel, steady_ns(), out);
    });
  }
  void hang_up(Target target) override {
    post([this, target](Actions* out) { endpoint_.hang_up(target, out); });
  }
  Status enqueue(Peer peer, Lane lane, Message message) override {
    if (!message || message->size() > kMaxMessage)
      return error(RAY_INVALID_ARGUMENT, "a message between nodes has at most %u bytes, this one %zu: send it in parts",
                   kMaxMessage, message ? message->size() : 0);
    post([this, peer, lane, message = std::move(message)](Actions* out) {
      endpoint_.enqueue(peer, lane, message, steady_ns(), out);
    });
    return Status();
  }
  void consumed(Peer peer, Lane lane, uint64_t bytes) override {
    post([this, peer, lane, bytes](Actions* out) { endpoint_.consumed(peer, lane, bytes, steady_ns(), out); });
  }
  void fence(const NodeId& node, uint32_t epoch) override {
    post([this, node, epoch](Actions* out) { endpoint_.fence(node, epoch, out); });
  }

 private:
  using Work = std::function<void(Actions*)>;
  Status load_certificates();
  Status listen();
  void post(Work work);
  void loop();
  void apply(Actions& actions);
  void begin_dial(Target target, const std::string& address);
  void end_dial(Target target, uint64_t number, Actions* out);
  Conn adopt(nng_stream* stream);
  void accept_on();
  void end_accept(Actions* out);

  // Stream::Owner, on NNG's threads
  void on_bytes(Conn conn, std::string_view bytes) override {
    post([this, conn, bytes](Actions* out) {  // they stay in the stream's buffer until read_on()
      auto it = streams_.find(conn);
      if (it == streams_.end()) return;
      endpoint_.received(conn, bytes, steady_ns(), out);
      read_.push_back(conn);
    });
  }
  void on_written(Conn conn) override {
    post([this, conn](Actions* out) { endpoint_.written(conn, steady_ns(), out); });
  }
  void on_broken(Conn conn, const std::string& why) override {
    post([this, conn, why](Actions* out) {
      endpoint_.closed(conn, why, steady_ns(), out);
      streams_.erase(conn);
    });
  }

  const TransportOptions options_;
  User* const user_;
  std::string address_;
  nng_tls_config *tls_dial_ = nullptr, *tls_listen_ = nullptr;
  nng_stream_listener* listener_ = nullptr;
  nng_aio* accept_ = nullptr;
  int64_t accept_again_at_ = INT64_MAX;

  // The thread's own.
  Endpoint endpoint_;
  std::map<Conn, std::unique_ptr<Stream>> streams_;
  std::map<Target, std::unique_ptr<Dialler>> dials_;
  std::vector<Conn> read_;  // streams to be read on from when the actions are done
  Conn next_conn_ = 1;
  uint64_t next_dial_ = 1;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Work> queue_;
  bool over_ = false;
  std::thread thread_;
};

void TransportImpl::post(Work work) {
  std::lock_guard lock(mutex_);
  queue_.push_back(std::move(work));
  if (queue_.size() == 1) wake_.notify_one();
}

Status TransportImpl::load_certificates() {
  if (options_.tls.certificate_and_key.empty() && options_.tls.ca.empty()) return Status();
  for (auto [config, mode] : {std::pair{&tls_dial_, NNG_TLS_MODE_CLIENT}, {&tls_listen_, NNG_TLS_MODE_SERVER}}) {
    int rv = nng_tls_config_alloc(config, mode);
    if (rv == 0) rv = nng_tls_config_auth_mode(*config, NNG_TLS_AUTH_MODE_REQUIRED);
    if (rv != 0) return nng_error(RAY_UNAVAILABLE, "cannot use TLS", rv);
    rv = nng_tls_config_ca_file(*config, options_.tls.ca.c_str());
    if (rv != 0) return nng_error(RAY_INVALID_ARGUMENT, "cannot read the CA's certificate " + options_.tls.ca, rv);
    rv = nng_tls_config_cert_key_file(*config, options_.tls.certificate_and_key.c_str(), nullptr);
    if (rv != 0)
      return nng_error(RAY_INVALID_ARGUMENT, "cannot read certificate and key in " + options_.tls.certificate_and_key, rv);
  }
  return Status();
}

Status TransportImpl::listen() {
  if (options_.listen.empty()) return Status();
  const std::string what = "cannot listen on " + options_.listen;
  if (is_tls(options_.listen) && !tls_listen_)
    return error(RAY_INVALID_ARGUMENT, "%s: TLS needs a certificate, its key and the CA's certificate", what.c_str());
  int rv = nng_stream_listener_alloc(&listener_, options_.listen.c_str());
  if (rv != 0) return nng_error(RAY_INVALID_ARGUMENT, what, rv);
  if (is_tls(options_.listen)) rv = nng_stream_listener_set_ptr(listener_, NNG_OPT_TLS_CONFIG, tls_listen_);
  const bool ipc = options_.listen.rfind("ipc://", 0) == 0;
  if (rv == 0 && ipc) rv = nng_stream_listener_set_int(listener_, NNG_OPT_IPC_PERMISSIONS, 0600);
  if (rv == 0) rv = nng_stream_listener_listen(listener_);
  if (rv != 0) return nng_error(RAY_UNAVAILABLE, what, rv);
  address_ = options_.listen;
  int port = 0;
  if (!ipc && nng_stream_listener_get_int(listener_, NNG_OPT_TCP_BOUND_PORT, &port) == 0)
    address_ = address_.substr(0, address_.rfind(':') + 1) + std::to_string(port);
  auto accepted = [](void* self) {
    static_cast<TransportImpl*>(self)->post([self](Actions* out) { static_cast<TransportImpl*>(self)->end_accept(out); });
  };
  rv = nng_aio_alloc(&accept_, accepted, this);
  if (rv != 0) return nng_error(RAY_OUT_OF_MEMORY, what, rv);
  accept_on();
  return Status();
}

Status TransportImpl::open() {
  RAY_TRY(start_nng());
  RAY_TRY(load_certificates());
  RAY_TRY(listen());
  return start_thread(&thread_, "the thread of the network", [this] { loop(); });
}

TransportImpl::~TransportImpl() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
  if (listener_) nng_stream_listener_close(listener_);
  if (accept_) {
    nng_aio_stop(accept_);
    if (nng_aio_result(accept_) == 0)
      if (auto* late = static_cast<nng_stream*>(nng_aio_get_output(accept_, 0))) nng_stream_free(late);
    nng_aio_free(accept_);
  }
  dials_.clear();
  streams_.clear();
  if (listener_) nng_stream_listener_free(listener_);
  if (tls_dial_) nng_tls_config_free(tls_dial_);
  if (tls_listen_) nng_tls_config_free(tls_listen_);
}

void TransportImpl::loop() {
  std::vector<Work> work;
  int64_t until = INT64_MAX;  // of the end: what was said before is to arrive, a node's last word too
  for (;;) {
    const int64_t at = std::min({endpoint_.deadline(), accept_again_at_, until});
    {
      std::unique_lock lock(mutex_);
      const auto there = [&] { return !queue_.empty() || (over_ && (until == INT64_MAX || !endpoint_.owes_urgent())); };
      if (at == INT64_MAX) wake_.wait(lock, there);
      else wake_.wait_for(lock, std::chrono::nanoseconds(std::max<int64_t>(0, at - steady_ns())), there);
      if (over_ && until == INT64_MAX) until = steady_ns() + kLastWordsNs;
      if (over_ && ((queue_.empty() && !endpoint_.owes_urgent()) || steady_ns() >= until)) return;
      work.swap(queue_);
    }
    for (Work& w : work) {
      Actions actions;
      w(&actions);
      apply(actions);
    }
    work.clear();
    for (Conn conn : read_)
      if (auto it = streams_.find(conn); it != streams_.end()) {
        if (endpoint_.is_proven(conn)) it->second->trust();
        it->second->read_on();
      }
    read_.clear();
    const int64_t now = steady_ns();
    if (now >= accept_again_at_) accept_on();
    if (now < endpoint_.deadline()) continue;
    Actions actions;
    endpoint_.tick(now, &actions);
    apply(actions);
  }
}

void TransportImpl::apply(Actions& actions) {
  for (Action& a : actions) switch (a.kind) {
      case Action::kDial: begin_dial(a.target, a.text); break;
      case Action::kWrite:
        if (auto it = streams_.find(a.conn); it != streams_.end()) it->second->write(std::move(a.pieces));
        break;
      case Action::kClose: streams_.erase(a.conn); break;
      case Action::kDeliver: user_->on_message(a.peer, a.lane, std::move(a.text)); break;
      case Action::kUp:
        if (const Identity* who = endpoint_.find(a.peer)) user_->on_up(a.peer, *who, endpoint_.channel_of(a.peer));
        break;
      case Action::kDown: user_->on_down(a.peer); break;
      case Action::kReset: user_->on_reset(a.peer); break;
      case Action::kWritable: user_->on_writable(a.peer, a.lane); break;
      case Action::kRefused: user_->on_refused(a.target, a.text); break;
      case Action::kLog: log(kLogWarning, "net", "peer", "%s", a.text.c_str()); break;
    }
}

// ---- connections

Conn TransportImpl::adopt(nng_stream* stream) {
  const Conn conn = next_conn_++;
  auto s = Stream::make(conn, stream, this);
  if (!s) return 0;
  s->read_on();
  streams_[conn] = std::move(s);
  return conn;
}

void TransportImpl::begin_dial(Target target, const std::string& address) {
  auto d = std::make_unique<Dialler>();
  d->transport = this;
  d->target = target;
  d->number = next_dial_++;
  auto fail = [&](const std::string& why) {
    post([this, target, why](Actions* out) { endpoint_.dial_failed(target, why, steady_ns(), out); });
  };
  if (is_tls(address) && !tls_dial_) return fail("TLS needs a certificate, its key and the CA's certificate");
  int rv = nng_stream_dialer_alloc(&d->dialer, address.c_str());
  if (rv == 0 && is_tls(address)) rv = nng_stream_dialer_set_ptr(d->dialer, NNG_OPT_TLS_CONFIG, tls_dial_);
  auto finished = [](void* arg) {
    const auto* d = static_cast<Dialler*>(arg);
    d->transport->post([t = d->transport, which = d->target, n = d->number](Actions* out) { t->end_dial(which, n, out); });
  };
  if (rv == 0) rv = nng_aio_alloc(&d->aio, finished, d.get());
  if (rv != 0) return fail(nng_strerror(rv));
  nng_aio_set_timeout(d->aio, kDialMs);
  nng_stream_dialer_dial(d->dialer, d->aio);
  dials_[target] = std::move(d);
}

void TransportImpl::end_dial(Target target, uint64_t number, Actions* out) {
  auto it = dials_.find(target);
  if (it == dials_.end() || it->second->number != number) return;
  const std::unique_ptr<Dialler> d = std::move(it->second);
  dials_.erase(it);
  const int rv = nng_aio_result(d->aio);
  d->taken = true;
  const Conn conn = rv == 0 ? adopt(static_cast<nng_stream*>(nng_aio_get_output(d->aio, 0))) : 0;
  if (conn) endpoint_.dialled(target, conn, steady_ns(), out);
  else endpoint_.dial_failed(target, rv == 0 ? "out of memory" : nng_strerror(rv), steady_ns(), out);
}

void TransportImpl::accept_on() {
  accept_again_at_ = INT64_MAX;
  nng_stream_listener_accept(listener_, accept_);
}

void TransportImpl::end_accept(Actions* out) {
  const int rv = nng_aio_result(accept_);
  if (rv == NNG_ECLOSED || rv == NNG_ECANCELED) return;
  if (rv != 0) {
    accept_again_at_ = steady_ns() + kAcceptAgainNs;
    return;
  }
  const Conn conn = adopt(static_cast<nng_stream*>(nng_aio_get_output(accept_, 0)));
  if (conn) endpoint_.accepted(conn, streams_[conn]->peer_address(), steady_ns(), out);
  accept_on();
}

}  // namespace

Result<std::unique_ptr<Transport>> Transport::start(TransportOptions options, User* user) {
  auto t = std::make_unique<TransportImpl>(std::move(options), user);
  RAY_TRY(t->open());
  return std::unique_ptr<Transport>(std::move(t));
}

}  // namespace ray::net
