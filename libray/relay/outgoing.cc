// See outgoing.h.
#include "libray/relay/outgoing.h"

#include <utility>

#include "libray/wire/packed.h"

namespace ray::relay {

Outgoing& Outgoing::operator=(Outgoing&& o) noexcept {
  if (this == &o) return *this;
  clear();
  number = o.number, run_ns = o.run_ns, code = o.code, flags = o.flags;
  pieces = std::exchange(o.pieces, {});
  piece_ = o.piece_, segment_ = o.segment_, at_ = o.at_, in_record_ = o.in_record_, open_ = o.open_;
  return *this;
}

void Outgoing::clear() {
  for (Piece& p : pieces)
    if (p.buffer.release) p.buffer.release(&p.buffer);
  pieces.clear();
}

void Outgoing::fail(ray_code why, const std::string& message, uint32_t with_flags) {
  clear();
  code = why;
  flags = with_flags;
  Piece p;
  p.given = true;
  p.format = wire::kFmtError;
  p.image = wire::pack_error(why, message, 0, {});
  pieces.push_back(std::move(p));
}

size_t Outgoing::segments(const Piece& p) { return 1 + p.buffer.n_oob; }

std::string_view Outgoing::segment(const Piece& p, size_t i) {
  if (p.format == wire::kFmtError) return p.image;
  if (i == 0) return {static_cast<const char*>(p.buffer.data), p.buffer.size};
  const ray_bytes& b = p.buffer.oob[i - 1];
  return {static_cast<const char*>(b.data), b.size};
}

Value Outgoing::value(const Piece& p) {
  Value v;
  v.given = p.given;
  v.apart = p.apart;
  v.format = p.format;
  if (!p.given || p.apart) return v;
  v.data = segment(p, 0);
  for (size_t i = 1; i < segments(p); ++i) v.oob.push_back(segment(p, i));
  return v;
}

bool Outgoing::next(uint64_t lane, Record* r) {
  *r = Record();
  r->lane = lane;
  for (; piece_ < pieces.size(); ++piece_) {
    Piece& p = pieces[piece_];
    if (!p.given) continue;
    if (!open_) {
      uint64_t bytes = 16 * segments(p);
      for (size_t i = 0; i < segments(p); ++i) bytes += segment(p, i).size();
      if (fits_in_place(bytes, in_record_)) {
        in_record_ += bytes;
        continue;
      }
      p.apart = open_ = true;
      segment_ = 0, at_ = 0;
      r->kind = Kind::kResult;
      r->number = number;
      r->index = static_cast<uint32_t>(piece_);
      r->value.given = r->value.apart = true;
      r->value.format = p.format;
      r->value.size = segment(p, 0).size();
      for (size_t i = 1; i < segments(p); ++i) r->value.oob_sizes.push_back(segment(p, i).size());
      return false;
    }
    while (segment_ < segments(p) && at_ == segment(p, segment_).size()) ++segment_, at_ = 0;
    if (segment_ < segments(p)) {
      r->kind = Kind::kResultPart;
      r->bytes = segment(p, segment_).substr(at_, kPart);
      at_ += r->bytes.size();
      return false;
    }
    open_ = false;
  }
  r->kind = Kind::kDone;
  r->done.number = number;
  r->done.code = code;
  r->done.flags = flags;
  r->done.run_ns = run_ns;
  for (const Piece& p : pieces) r->done.results.push_back(value(p));
  return true;
}

}  // namespace ray::relay
