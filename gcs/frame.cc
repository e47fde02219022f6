// See frame.h.
#include "gcs/frame.h"

#include "gcs/msg.h"

namespace ray::gcs {

std::string request_head(std::string_view token, uint64_t client, uint64_t seq, uint64_t ack_below,
                         uint32_t op) {
  std::string out;
  Writer(&out).array(8).u(kFrameVersion).bin(token).u(client).u(seq).u(ack_below).u(0).u(op);
  return out;
}

bool parse_request(std::string_view bytes, RequestFrame* out) {
  Reader r(bytes);
  r.array_of(8);
  out->version = static_cast<uint32_t>(r.u());
  out->token = r.bytes();
  out->request.client = r.u();
  out->request.seq = r.u();
  out->request.ack_below = r.u();
  out->epoch = static_cast<uint32_t>(r.u());
  out->request.op = static_cast<uint32_t>(r.u());
  out->request.args = r.value();
  return r.done();
}

std::string reply_head(int32_t code, std::string_view text, bool with_nil) {
  std::string out;
  Writer w(&out);
  w.array(3).i(code).str(text);
  if (with_nil) w.nil();
  return out;
}

bool parse_reply(std::string_view bytes, int32_t* code, std::string_view* text,
                 std::string_view* answer) {
  Reader r(bytes);
  r.array_of(3);
  *code = static_cast<int32_t>(r.i());
  *text = r.bytes();
  bool nil = r.is_nil();
  *answer = r.value();
  if (nil) *answer = {};
  return r.done();
}

std::string append_head(const AppendArgs& a, size_t blob_size) {
  std::string out;
  Writer(&out).array(7).id(a.node).u(a.epoch).u(a.lsn_from).u(a.n).u(a.codec).u(a.raw_size);
  // A bin header for bytes that the caller adds.
  char head[5] = {'\xc6', static_cast<char>(blob_size >> 24), static_cast<char>(blob_size >> 16),
                  static_cast<char>(blob_size >> 8), static_cast<char>(blob_size)};
  out.append(head, sizeof head);
  return out;
}

bool parse_append(std::string_view args, AppendArgs* out) {
  Reader r(args);
  r.array_of(7);
  out->node = r.id();
  out->epoch = static_cast<uint32_t>(r.u());
  out->lsn_from = r.u();
  uint64_t n = r.u();
  out->codec = static_cast<uint32_t>(r.u());
  out->raw_size = r.u();
  out->blob = r.bytes();
  out->n = static_cast<uint32_t>(n);
  return r.done() && n <= (1u << 30) && out->lsn_from >= 1 && out->codec <= 2 &&
         out->lsn_from < (uint64_t{1} << 62) && out->raw_size <= (64u << 20);
}

bool same_token(std::string_view x, std::string_view y) {
  if (x.size() != y.size()) return false;
  unsigned char diff = 0;
  for (size_t k = 0; k < x.size(); ++k) diff |= static_cast<unsigned char>(x[k] ^ y[k]);
  return diff == 0;
}

}  // namespace ray::gcs
