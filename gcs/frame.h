// Frames between a client and a shard. Pure.
//   request: [version, token, client, seq, ack_below, epoch, op, arguments]
//   reply:   [code, text, answer or nil]
// The last element is MessagePack written by the caller; it is a view into the frame.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "gcs/tables.h"

namespace ray::gcs {

inline constexpr uint32_t kFrameVersion = 1;

struct RequestFrame {
  uint32_t version = 0;
  uint32_t epoch = 0;  // of the shard's configuration; 0 = whatever it is
  std::string_view token;
  Request request;
};
// What comes before the arguments.
std::string request_head(std::string_view token, uint64_t client, uint64_t seq, uint64_t ack_below,
                         uint32_t op);
bool parse_request(std::string_view bytes, RequestFrame* out);
// What comes before the answer (or nil, when it is empty: `with_nil` adds it).
std::string reply_head(int32_t code, std::string_view text, bool with_nil);
bool parse_reply(std::string_view bytes, int32_t* code, std::string_view* text,
                 std::string_view* answer);

// Arguments of kAppend, as far as they come before the blob's bytes.
struct AppendArgs {
  NodeId node;
  uint32_t epoch = 0, n = 0;
  uint64_t lsn_from = 0, raw_size = 0;
  uint32_t codec = 0;
  std::string_view blob;
};
std::string append_head(const AppendArgs& args, size_t blob_size);
bool parse_append(std::string_view args, AppendArgs* out);

bool same_token(std::string_view x, std::string_view y);  // in constant time

}  // namespace ray::gcs
