// Encoder and validated decoder of lineage records (record.h).
//
// Who calls it: runtimes encode straight into their lineage ring; the control store's materialiser,
// tools and tests decode. Threads: any; no state. Invariant: a decoder follows no length that does
// not fit the bytes it was given, so it may be fed anything; views point into the caller's bytes.
//
// Layout in detail: the fixed record, then name and method, each padded to 8, then for each argument an
// ArgRecord and its bytes padded to 8 (an exec record: results, then the error text). A *batch* is any
// number of records back to back: RecordHeader (base/ring.h), payload, padding to 8.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libray/lineage/record.h"

namespace ray::lineage {

// ---- encoding -----------------------------------------------------------------------------------------
struct ArgIn {
  bool is_ref = false;
  uint32_t format = 0;
  std::string_view bytes;  // is_ref: the 24 bytes of the object id
};
struct ResultIn {
  uint32_t index = 0;
  uint32_t format = 0;
  uint64_t size = 0;       // of the whole value
  bool in_store = false;
  std::string_view bytes;  // the value, if it is at most kResultInlineMax; else empty
};
struct SubmitIn {
  SubmitRecord fixed{};  // n_args, name_size, method_size are filled by the encoder
  std::string_view name, method;
  const ArgIn* args = nullptr;
  uint32_t n_args = 0;
};
struct ExecIn {
  ExecRecord fixed{};  // n_results and error_size are filled by the encoder
  const ResultIn* results = nullptr;
  uint32_t n_results = 0;
  std::string_view error;
};
// Payload bytes, and writing them to memory of that size (a ring reservation).
size_t encoded_size(const SubmitIn& in);
size_t encoded_size(const ExecIn& in);
void encode(const SubmitIn& in, uint8_t* out);
void encode(const ExecIn& in, uint8_t* out);
// The same with header and padding, appended to a batch.
void append(std::string* batch, const SubmitIn& in);
void append(std::string* batch, const ExecIn& in);
// kEvent or kError: `map` is one MessagePack map.
void append_event(std::string* batch, RecordType type, int64_t time_ns, uint32_t process,
                  std::string_view map);

// ---- decoding -----------------------------------------------------------------------------------------
class BatchReader {
 public:
  explicit BatchReader(std::string_view batch) : at_(batch) {}
  // False at the end, or at the first record that does not fit: corrupt() tells which.
  bool next(uint16_t* type, std::string_view* payload);
  bool corrupt() const { return corrupt_; }

 private:
  std::string_view at_;
  bool corrupt_ = false;
};

struct ArgView {
  bool is_ref;
  uint32_t format;
  std::string_view bytes;
};
struct SubmitView {
  SubmitRecord fixed;
  std::string_view name, method;
  std::vector<ArgView> args;  // kept between calls: no allocation in a loop
};
struct ResultView {
  ResultRecord fixed;
  std::string_view bytes;
};
struct ExecView {
  ExecRecord fixed;
  std::vector<ResultView> results;
  std::string_view error;
};
struct EventView {
  EventRecord fixed;
  std::string_view map;
};
bool decode(std::string_view payload, SubmitView* out);
bool decode(std::string_view payload, ExecView* out);
bool decode(std::string_view payload, EventView* out);

}  // namespace ray::lineage
