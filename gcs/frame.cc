// See frame.h.
#include "gcs/frame.h"

#include "libray/wire/cursor.h"

namespace ray::gcs {

std::string request_head(std::string_view token, uint64_t client, uint64_t seq, uint64_t ack_below,
                         uint32_t op) {
  std::string out;
  wire::Writer(&out).array(8).uint64(kFrameVersion).bin(token).uint64(client).uint64(seq).uint64(ack_below).uint64(0).uint64(op);
  return out;
}

bool parse_request(std::string_view bytes, RequestFrame* out) {
  wire::Cursor r(bytes);
  r.array_of(8);
  out->version = static_cast<uint32_t>(r.uint64());
  out->token = r.bytes();
  out->request.client = r.uint64();
  out->request.seq = r.uint64();
  out->request.ack_below = r.uint64();
  out->epoch = static_cast<uint32_t>(r.uint64());
  out->request.op = static_cast<uint32_t>(r.uint64());
  out->request.args = r.value();
  return r.done();
}

std::string reply_head(int32_t code, std::string_view text, bool with_nil) {
  std::string out;
  wire::Writer w(&out);
  w.array(3).int64(code).str(text);
  if (with_nil) w.nil();
  return out;
}

bool parse_reply(std::string_view bytes, int32_t* code, std::string_view* text,
                 std::string_view* answer) {
  wire::Cursor r(bytes);
  r.array_of(3);
  *code = static_cast<int32_t>(r.int64());
  *text = r.bytes();
  bool nil = r.is_nil();
  *answer = r.value();
  if (nil) *answer = {};
  return r.done();
}

std::string append_head(const AppendArgs& a, size_t blob_size) {
  std::string out;
  wire::Writer(&out).array(7).id(a.node).uint64(a.epoch).uint64(a.lsn_from).uint64(a.n).uint64(a.codec).uint64(a.raw_size);
  // A bin header for bytes that the caller adds.
  char head[5] = {'\xc6', static_cast<char>(blob_size >> 24), static_cast<char>(blob_size >> 16),
                  static_cast<char>(blob_size >> 8), static_cast<char>(blob_size)};
  out.append(head, sizeof head);
  return out;
}

bool parse_append(std::string_view args, AppendArgs* out) {
  wire::Cursor r(args);
  r.array_of(7);
  out->node = r.id();
  out->epoch = static_cast<uint32_t>(r.uint64());
  out->lsn_from = r.uint64();
  uint64_t n = r.uint64();
  out->codec = static_cast<uint32_t>(r.uint64());
  out->raw_size = r.uint64();
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
