// Frames, filters and records of the control store: views lie within the input, texts are
// valid.
#include "gcs/frame.h"

#include <algorithm>
#include <memory>

#include "fuzz/fuzz.h"
#include "gcs/query.h"
#include "gcs/text.h"
#include "libray/wire/cursor.h"

using namespace ray::gcs;

FUZZ_TARGET(gcs_frame) {
  auto copy = std::make_unique<char[]>(input.size() + 1);
  std::copy(input.begin(), input.end(), copy.get());
  std::string_view bytes(copy.get(), input.size());
  auto inside = [&](std::string_view part) {
    return part.empty() || (part.data() >= bytes.data() &&
                            part.data() + part.size() <= bytes.data() + bytes.size());
  };
  std::string_view value = ray::wire::Cursor(bytes).value();
  if (!value.empty()) FUZZ_CHECK(ray::wire::is_utf8(to_text(value, 100)));
  RequestFrame request;
  if (parse_request(bytes, &request)) {
    FUZZ_CHECK(inside(request.token) && inside(request.request.args));
    std::string again = request_head(request.token, request.request.client, request.request.seq,
                                     request.request.ack_below, request.request.op);
    again.append(request.request.args);
    RequestFrame second;
    FUZZ_CHECK(parse_request(again, &second));
    FUZZ_CHECK(second.token == request.token && second.request.op == request.request.op);
    FUZZ_CHECK(second.request.seq == request.request.seq &&
               second.request.args == request.request.args);
    AppendArgs append;
    if (parse_append(request.request.args, &append)) FUZZ_CHECK(inside(append.blob));
  }
  int32_t code;
  std::string_view text, answer;
  if (parse_reply(bytes, &code, &text, &answer)) FUZZ_CHECK(inside(text) && inside(answer));
  AppendArgs append;
  if (parse_append(bytes, &append)) FUZZ_CHECK(inside(append.blob));
  Filter filter;
  parse_filter(bytes, &filter);
  Record record;
  if (parse_record(1, bytes, &record)) FUZZ_CHECK(inside(record.text) && inside(record.answer));
}
