// See incoming.h.
#include "libray/relay/incoming.h"

#include <algorithm>

#include "libray/base/copy.h"
#include "libray/runtime/runtime.h"
#include "store/client.h"

namespace ray::relay {
namespace {

constexpr uint64_t kMaxError = 128u << 20;  // a packed error

}  // namespace

Incoming::~Incoming() {
  if (writer_ && !writer_->sealed && !writer_->dropped) writer_->store->abort(&writer_->building);
}

ray_value Incoming::shape_of(const Value& v, std::vector<ray_bytes>* sizes) {
  for (uint64_t n : v.oob_sizes) sizes->push_back({nullptr, n});
  ray_value shape = ray_plain(nullptr, v.size, v.format);
  shape.oob = sizes->data();
  shape.n_oob = sizes->size();
  return shape;
}

void Incoming::take(std::unique_ptr<WriterState> writer, const ray_value& shape) {
  places_.push_back({writer->data, shape.size});
  for (uint64_t i = 0; i < shape.n_oob; ++i) places_.push_back({writer->oob[i], shape.oob[i].size});
  writer_ = std::move(writer);
}

// Its memory grows with what comes, not with what is announced.
void Incoming::open_error(const Value& v) {
  if (opened_) return;
  opened_ = true;
  image_size_ = v.size;
  if (!v.oob_sizes.empty() || v.size > kMaxError)
    status_ = error(RAY_INTERNAL, "an error of %llu bytes", static_cast<unsigned long long>(v.size));
}

bool Incoming::skip_full() {
  while (place_ < places_.size() && at_ == places_[place_].second) ++place_, at_ = 0;
  return place_ == places_.size();
}

void Incoming::fill(std::string_view bytes) {
  static constexpr char kTooMany[] = "it has more bytes than were announced";
  if (!status_.ok()) return;
  if (!writer_) {
    if (bytes.size() > image_size_ - image_.size()) status_ = error(RAY_INTERNAL, kTooMany);
    else image_.append(bytes);
    return;
  }
  while (!bytes.empty()) {
    if (skip_full()) {
      status_ = error(RAY_INTERNAL, kTooMany);
      return;
    }
    auto& [place, size] = places_[place_];
    const size_t n = std::min<uint64_t>(bytes.size(), size - at_);
    copy_large(place + at_, bytes.data(), n);
    at_ += n;
    bytes.remove_prefix(n);
  }
}

Status Incoming::whole() {
  RAY_TRY(status_);
  const bool all = writer_ ? skip_full() : opened_ && image_.size() == image_size_;
  return all ? Status() : error(RAY_INTERNAL, "it has fewer bytes than were announced");
}

}  // namespace ray::relay
