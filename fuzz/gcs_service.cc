// A whole shard of the control store behind its socket: every frame gets exactly one reply,
// whatever it says, and an honest request is answered rightly afterwards.
//
// Input: frames of [kind][op][size, 2 bytes] and `size` bytes. Kind bit 0: the bytes are the frame
// itself, else the arguments of a well-formed one; bit 1: with a wrong token (refused); bits 2-3:
// the client.
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

#include <algorithm>
#include <filesystem>

#include "fuzz/fuzz.h"
#include "gcs/frame.h"
#include "libray/wire/cursor.h"
#include "gcs/ops.h"
#include "gcs/service.h"
#include "libray/base/log.h"
#include "libray/net/nng_close.h"

using namespace ray;
using namespace ray::gcs;

namespace {

constexpr char kToken[] = "0123456789abcdef0123456789abcdef";
constexpr int kInputsPerShard = 3000;  // what they store is thrown away then

struct Shard {
  std::string dir;
  std::unique_ptr<Service> service;
  nng_socket socket = NNG_SOCKET_INITIALIZER;
  int inputs = 0;
  uint64_t seq = 0, seqs[4] = {};

  Shard() {
    set_log_handler([](int32_t, const char*, const char*, const char*, void*) {}, kLogError,
                    nullptr);
    dir = "/tmp/libray-fuzz-shard-XXXXXX";
    FUZZ_CHECK(::mkdtemp(dir.data()) != nullptr);
    ShardOptions o;
    o.dir = dir;
    o.url = "ipc://" + dir + "/s.sock";
    o.token = kToken;
    o.flush_ns = 0;
    auto s = Service::start(o);
    FUZZ_CHECK(s.ok());
    service = std::move(*s);
    FUZZ_CHECK(nng_req0_open(&socket) == 0);
    nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, 256u << 20);
    FUZZ_CHECK(nng_dial(socket, o.url.c_str(), nullptr, 0) == 0);
  }
  ~Shard() {
    net::close_socket(socket);
    service.reset();
    std::error_code e;
    std::filesystem::remove_all(dir, e);
  }

  // The reply, or nothing for a poll that waits for news.
  bool ask(std::string_view frame, std::string* out, bool may_wait) {
    nng_ctx ctx;
    nng_msg* msg = nullptr;
    nng_aio* aio = nullptr;
    FUZZ_CHECK(nng_ctx_open(&ctx, socket) == 0 && nng_aio_alloc(&aio, nullptr, nullptr) == 0);
    FUZZ_CHECK(nng_msg_alloc(&msg, 0) == 0 && nng_msg_append(msg, frame.data(), frame.size()) == 0);
    nng_aio_set_timeout(aio, may_wait ? 5 : 20000);
    nng_aio_set_msg(aio, msg);
    nng_ctx_send(ctx, aio);
    nng_aio_wait(aio);
    bool answered = nng_aio_result(aio) == 0;
    if (!answered) nng_msg_free(msg);
    if (answered) {
      nng_ctx_recv(ctx, aio);
      nng_aio_wait(aio);
      answered = nng_aio_result(aio) == 0;
      if (answered) {
        msg = nng_aio_get_msg(aio);
        out->assign(static_cast<const char*>(nng_msg_body(msg)), nng_msg_len(msg));
        nng_msg_free(msg);
      }
    }
    nng_aio_free(aio);
    nng_ctx_close(ctx);
    FUZZ_CHECK(answered || may_wait);
    return answered;
  }
  void check_honest() {
    std::string key = "k" + std::to_string(++seq), put, get, reply;
    wire::Writer(&put).array(4).str("honest").bin(key).bin("value").uint64(UINT64_MAX);
    wire::Writer(&get).array(2).str("honest").bin(key);
    int32_t code;
    std::string_view text, answer;
    ask(request_head(kToken, 77, 2 * seq, 2 * seq, kKvPut) + put, &reply, false);
    FUZZ_CHECK(parse_reply(reply, &code, &text, &answer) && code == RAY_OK);
    ask(request_head(kToken, 77, 2 * seq + 1, 2 * seq, kKvGet) + get, &reply, false);
    FUZZ_CHECK(parse_reply(reply, &code, &text, &answer) && code == RAY_OK);
    wire::Cursor r(answer);
    r.array_of(2);
    r.uint64();
    FUZZ_CHECK(r.bytes() == "value" && r.done());
  }
};

}  // namespace

FUZZ_TARGET(gcs_service) {
  static std::unique_ptr<Shard> shard;
  if (!shard || ++shard->inputs > kInputsPerShard) {
    shard.reset();
    shard = std::make_unique<Shard>();
  }
  for (int n = 0; input.size() >= 4 && n < 8; ++n) {
    auto byte = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
    uint8_t kind = byte(0), op = byte(1);
    size_t size = std::min<size_t>(byte(2) | byte(3) << 8, input.size() - 4);
    std::string_view bytes = input.substr(4, size);
    input.remove_prefix(4 + size);
    uint32_t client = kind >> 2 & 3;
    std::string wrong = kToken, frame(bytes), reply;
    wrong[7] ^= 1;
    if (!(kind & 1)) {
      uint64_t seq = ++shard->seqs[client];
      frame = request_head(kind & 2 ? wrong : kToken, 1 + client, seq, seq, op);
      frame.append(bytes);
    }
    RequestFrame parsed;
    bool well_formed = parse_request(frame, &parsed);
    bool let_in =
        well_formed && parsed.version == kFrameVersion && same_token(parsed.token, kToken);
    bool is_poll = let_in && (parsed.request.op == kPoll || parsed.request.op == kAppend);
    if (!shard->ask(frame, &reply, is_poll)) continue;
    int32_t code;
    std::string_view text, answer;
    FUZZ_CHECK(parse_reply(reply, &code, &text, &answer));
    FUZZ_CHECK(let_in || (code == RAY_INVALID_ARGUMENT && answer.empty()));
    FUZZ_CHECK(code == RAY_OK || !text.empty());
  }
  shard->check_honest();
}
