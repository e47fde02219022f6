// See frame.h.
#include "libray/net/core/frame.h"

#include <bit>
#include <cstring>

namespace ray::net {

static_assert(std::endian::native == std::endian::little, "the head is written as it lies in memory");

namespace {

// As in the stream. The word after the lane is for later versions and is not looked at.
struct Packed {
  uint32_t size;
  uint8_t kind, lane;
  uint16_t later;
  uint64_t seq, ack, granted;
};
static_assert(sizeof(Packed) == kHeadSize);

}  // namespace

void put_head(const Head& h, std::string* out) {
  const Packed p{h.size, static_cast<uint8_t>(h.kind), h.lane, 0, h.seq, h.ack, h.granted};
  out->append(reinterpret_cast<const char*>(&p), sizeof p);
}

std::string frame_of(Kind kind, std::string_view body) {
  std::string out;
  put_head(Head{static_cast<uint32_t>(body.size()), kind}, &out);
  out.append(body);
  return out;
}

FrameReader::Next FrameReader::next(Head* head, std::string_view* body, std::string* why) {
  if (at_ == bytes_.size() || at_ > 65536) {  // what was read goes, seldom enough to cost nothing
    bytes_.erase(0, at_);
    at_ = 0;
  }
  if (bytes_.size() - at_ < kHeadSize) return Next::kMore;
  Packed p;
  std::memcpy(&p, bytes_.data() + at_, sizeof p);
  if (p.kind < static_cast<uint8_t>(Kind::kHello) || p.kind > static_cast<uint8_t>(Kind::kBye)) {
    *why = strprintf("a frame of the unknown kind %u", p.kind);
    return Next::kBad;
  }
  if (p.lane >= kLanes) {
    *why = strprintf("a frame of the unknown lane %u", p.lane);
    return Next::kBad;
  }
  if (p.size > max_body_) {
    *why = strprintf("a frame of %u bytes, where %u are the most", p.size, max_body_);
    return Next::kBad;
  }
  if (bytes_.size() - at_ - kHeadSize < p.size) return Next::kMore;
  *head = Head{p.size, static_cast<Kind>(p.kind), p.lane, p.seq, p.ack, p.granted};
  *body = std::string_view(bytes_).substr(at_ + kHeadSize, p.size);
  at_ += kHeadSize + p.size;
  return Next::kFrame;
}

}  // namespace ray::net
