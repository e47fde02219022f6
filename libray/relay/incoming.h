// A value whose bytes come in parts, argument or result: filled in place, in the store of this node, in the order in which
// Outgoing and StandIn::send_parts cut it. Counterpart of outgoing.h.
//
// Who: gateway_tasks.cc for arguments, stand_in.cc for results; each on the one thread that takes its lane's records.
// Invariants: no byte is written outside of the places that were opened; a value is whole when each place is full, and
// one that got a byte more is never whole; what was not sealed gives its room in the store back.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libray/base/status.h"
#include "libray/relay/messages.h"
#include "libray/runtime/objects.h"
#include "libray/runtime/worker.h"
#include "ray.h"

namespace ray::relay {

class Incoming {
 public:
  Incoming() = default;
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;
  ~Incoming();

  // `open` makes room for a value of that shape: Status(const ray_value& shape, WriterState*).
  template <class Open>
  void open(const Value& v, Open open) {
    if (opened_) return;  // its bytes are too many for it, which is found then
    std::vector<ray_bytes> sizes;
    const ray_value shape = shape_of(v, &sizes);
    auto writer = std::make_unique<WriterState>();
    opened_ = true;
    status_ = check_value(shape, true);
    if (status_.ok()) status_ = open(shape, writer.get());
    if (status_.ok()) take(std::move(writer), shape);
  }
  // A packed error, which does not go to the store.
  void open_error(const Value& v);
  void fill(std::string_view bytes);
  Status whole();  // RAY_OK: all of it has come
  WriterState* writer() { return writer_.get(); }  // null: an error
  std::string& image() { return image_; }          // of an error

 private:
  static ray_value shape_of(const Value& v, std::vector<ray_bytes>* sizes);
  void take(std::unique_ptr<WriterState> writer, const ray_value& shape);
  bool skip_full();  // places; true: there are no others

  bool opened_ = false;
  Status status_;
  std::unique_ptr<WriterState> writer_;
  std::string image_;
  uint64_t image_size_ = 0;
  std::vector<std::pair<uint8_t*, uint64_t>> places_;  // data and buffers
  size_t place_ = 0;                                   // being filled
  uint64_t at_ = 0;                                    // in it
};

}  // namespace ray::relay
