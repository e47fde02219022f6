// See server.h.
#include "gcs/server.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/net/nng_close.h"

namespace ray::gcs {

class ServerImpl;

struct Slot {
  ServerImpl* server = nullptr;
  nng_ctx ctx = NNG_CTX_INITIALIZER;
  nng_aio* aio = nullptr;
  nng_msg* request = nullptr;
  enum { kReceiving, kWorking, kSending } state = kReceiving;
};

namespace {
constexpr size_t kFirstSlots = 4, kMaxSlots = 1024;

Status nng_error(int rv, const char* what, const std::string& url) {
  return error(RAY_UNAVAILABLE, "%s %s: %s", what, url.c_str(), nng_strerror(rv));
}
}  // namespace

class ServerImpl final : public Server {
 public:
  explicit ServerImpl(Options options) : options_(std::move(options)) {}
  ~ServerImpl() override;
  Status start();
  void reply(Slot* slot, int32_t code, std::string_view text, std::string_view answer) override;

 private:
  static void on_event(void* slot) { static_cast<Slot*>(slot)->server->advance(static_cast<Slot*>(slot)); }
  static void on_pipe(nng_pipe pipe, nng_pipe_ev, void* self) {
    static_cast<ServerImpl*>(self)->options_.gone(static_cast<uint32_t>(nng_pipe_id(pipe)));
  }
  void advance(Slot* slot);
  void receive(Slot* slot);
  void received(Slot* slot);
  bool add_slot();

  Options options_;
  nng_socket socket_ = NNG_SOCKET_INITIALIZER;
  bool open_ = false;
  std::mutex mutex_;
  std::condition_variable sent_;
  std::vector<std::unique_ptr<Slot>> slots_;
  int sending_ = 0;
  bool closing_ = false;
  std::atomic<int> receiving_{0};
};

Result<std::unique_ptr<Server>> Server::listen(Options options) {
  auto s = std::make_unique<ServerImpl>(std::move(options));
  RAY_TRY(s->start());
  return std::unique_ptr<Server>(std::move(s));
}

Status ServerImpl::start() {
  int rv = nng_rep0_open(&socket_);
  if (rv != 0) return nng_error(rv, "cannot open a socket for", options_.url);
  open_ = true;
  nng_socket_set_size(socket_, NNG_OPT_RECVMAXSZ, kMaxFrame);
  nng_pipe_notify(socket_, NNG_PIPE_EV_REM_POST, on_pipe, this);
  if (options_.url.rfind("ipc://", 0) == 0) ::unlink(options_.url.c_str() + 6);
  nng_listener listener;
  rv = nng_listener_create(&listener, socket_, options_.url.c_str());
  if (rv != 0) return nng_error(rv, "cannot use", options_.url);
  if (options_.url.rfind("ipc://", 0) == 0) nng_listener_set_int(listener, NNG_OPT_IPC_PERMISSIONS, 0600);
  rv = nng_listener_start(listener, 0);
  if (rv != 0) return nng_error(rv, "cannot listen on", options_.url);
  for (size_t k = 0; k < kFirstSlots; ++k)
    if (!add_slot()) return error(RAY_OUT_OF_MEMORY, "no memory for requests on %s", options_.url.c_str());
  return {};
}

bool ServerImpl::add_slot() {
  auto slot = std::make_unique<Slot>();
  slot->server = this;
  if (nng_ctx_open(&slot->ctx, socket_) != 0) return false;
  if (nng_aio_alloc(&slot->aio, on_event, slot.get()) != 0) {
    nng_ctx_close(slot->ctx);
    return false;
  }
  Slot* raw = slot.get();
  {
    std::lock_guard lock(mutex_);
    if (closing_ || slots_.size() >= kMaxSlots) {
      nng_ctx_close(slot->ctx);
      nng_aio_free(slot->aio);
      return false;
    }
    slots_.push_back(std::move(slot));
  }
  receive(raw);
  return true;
}

void ServerImpl::receive(Slot* slot) {
  slot->state = Slot::kReceiving;
  receiving_.fetch_add(1);
  nng_ctx_recv(slot->ctx, slot->aio);
}

void ServerImpl::advance(Slot* slot) {
  int rv = nng_aio_result(slot->aio);
  if (slot->state == Slot::kSending) {
    if (rv != 0) nng_msg_free(nng_aio_get_msg(slot->aio));
    {
      std::lock_guard lock(mutex_);
      if (--sending_ == 0) sent_.notify_all();
      if (closing_) return;
    }
    return receive(slot);
  }
  receiving_.fetch_sub(1);
  if (rv == NNG_ECLOSED || rv == NNG_ECANCELED) return;  // the end
  if (rv != 0) return receive(slot);
  received(slot);
}

void ServerImpl::received(Slot* slot) {
  slot->request = nng_aio_get_msg(slot->aio);
  slot->state = Slot::kWorking;
  // The last free context is taken: open one more, for this request may wait long (a poll).
  if (receiving_.load() == 0) add_slot();
  std::string_view bytes(static_cast<const char*>(nng_msg_body(slot->request)),
                         nng_msg_len(slot->request));
  RequestFrame frame;
  if (!parse_request(bytes, &frame) || frame.version != kFrameVersion)
    return reply(slot, RAY_INVALID_ARGUMENT, "malformed frame, or another version of it", {});
  if (!same_token(frame.token, options_.token))
    return reply(slot, RAY_INVALID_ARGUMENT, "wrong token: this is another session's control store", {});
  Incoming in;
  in.slot = slot;
  in.pipe = static_cast<uint32_t>(nng_pipe_id(nng_msg_get_pipe(slot->request)));
  in.request = frame.request;
  options_.request(in);
}

void ServerImpl::reply(Slot* slot, int32_t code, std::string_view text, std::string_view answer) {
  RAY_FAULT("gcs.reply");
  std::string head = reply_head(code, text.substr(0, 1000), answer.empty());
  nng_msg_free(slot->request);
  slot->request = nullptr;
  slot->state = Slot::kSending;
  nng_msg* msg = nullptr;
  if (nng_msg_alloc(&msg, 0) != 0 || nng_msg_append(msg, head.data(), head.size()) != 0 ||
      nng_msg_append(msg, answer.data(), answer.size()) != 0) {
    nng_msg_free(msg);
    log(kLogError, "gcs", "reply-lost", "no memory for an answer of %zu bytes", answer.size());
    return receive(slot);
  }
  {
    std::lock_guard lock(mutex_);
    ++sending_;
  }
  nng_aio_set_msg(slot->aio, msg);
  nng_ctx_send(slot->ctx, slot->aio);
}

ServerImpl::~ServerImpl() {
  if (!open_) return;
  {
    std::unique_lock lock(mutex_);
    sent_.wait_for(lock, std::chrono::milliseconds(500), [&] { return sending_ == 0; });
    closing_ = true;
  }
  for (auto& slot : slots_) nng_aio_stop(slot->aio);
  nng_pipe_notify(socket_, NNG_PIPE_EV_REM_POST, nullptr, nullptr);
  net::close_socket(socket_);
  for (auto& slot : slots_) {
    nng_aio_free(slot->aio);
    if (slot->request) nng_msg_free(slot->request);
  }
  if (options_.url.rfind("ipc://", 0) == 0) ::unlink(options_.url.c_str() + 6);
}

}  // namespace ray::gcs
