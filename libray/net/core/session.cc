// See session.h.
#include "libray/net/core/session.h"

#include <algorithm>

namespace ray::net {

namespace {

// What a message counts against what was granted: its frame, so that empty ones are bounded too.
uint64_t cost(size_t body) { return body + kHeadSize; }

unsigned long long number(uint64_t v) { return v; }

}  // namespace

Session::Session(const SessionOptions& options) : options_(options) {
  // Until the peer has said more: as much as any window allows.
  for (uint32_t lane = 0; lane < kLanes; ++lane) in_[lane].granted = options_.window[lane];
}

// ---- the user

bool Session::enqueue(Lane lane, Message message) {
  Out& o = out_[lane];
  const uint64_t size = cost(message->size());
  o.end += size;
  o.kept_bytes += size;
  o.kept.push_back({o.next_seq++, o.end, std::move(message)});
  if (o.kept_bytes >= options_.window[lane]) o.full = true;
  return !o.full;
}

bool Session::became_writable(Lane lane) {
  Out& o = out_[lane];
  if (!o.full || o.kept_bytes > options_.window[lane] / 2) return false;
  o.full = false;
  return true;
}

void Session::consumed(Lane lane, uint64_t bytes, uint64_t n) {
  In& in = in_[lane];
  in.done = std::min(in.arrived, in.done + bytes + n * kHeadSize);
  // Told once a good part of the window is free again: a word per message would cost more than it brings.
  if (grant(lane) - in.granted >= options_.window[lane] / 4) in.hurry = true;
}

// ---- the connection

Resume Session::resume() const {
  Resume r;
  for (uint32_t lane = 0; lane < kLanes; ++lane) r.lane[lane] = {in_[lane].received, grant(lane)};
  return r;
}

Status Session::attach(int64_t now, const Resume& told, const Resume& peer) {
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    const uint64_t received = peer.lane[lane].received, sent = out_[lane].next_seq - 1;
    if (received > sent)
      return error(RAY_CONFLICT, "the other node has received %llu messages of lane %u, and %llu were sent: it speaks of "
                   "another session", number(received), lane, number(sent));
  }
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    Out& o = out_[lane];
    o.granted = std::max(o.granted, peer.lane[lane].granted);
    o.transmitted = 0;
    RAY_TRY(acknowledge(lane, peer.lane[lane].received, peer.lane[lane].granted));
    // The user may have gone on since the greeting was made: what it does not say is said now.
    In& in = in_[lane];
    in.granted = told.lane[lane].granted;
    in.unsaid = 0;
    in.hurry = told.lane[lane].received != in.received || told.lane[lane].granted != grant(lane);
  }
  attached_ = true;
  pong_ = false;
  heard_ = said_ = now;
  ack_at_ = INT64_MAX;
  return Status();
}

void Session::detach() { attached_ = false; }

// Drops what the peer has. Only what was transmitted can have been received; and a greeting may be older than what came
// over another connection meanwhile.
Status Session::acknowledge(uint32_t lane, uint64_t ack, uint64_t granted) {
  Out& o = out_[lane];
  if (ack < o.acknowledged) return Status();  // older than what was said meanwhile
  const uint64_t transmitted = o.acknowledged + o.transmitted;
  if (attached_ && ack > transmitted)
    return error(RAY_INVALID_ARGUMENT, "it acknowledges message %llu of lane %u, and %llu were sent", number(ack), lane,
                 number(transmitted));
  while (o.acknowledged < ack) {
    o.kept_bytes -= cost(o.kept.front().message->size());
    o.kept.pop_front();
    ++o.acknowledged;
    if (o.transmitted > 0) --o.transmitted;
  }
  o.granted = std::max(o.granted, granted);
  return Status();
}

Status Session::receive(const Head& head, size_t size, int64_t now, bool* fresh) {
  In& in = in_[head.lane];
  if (head.seq != 0 && head.seq <= in.received) {  // sent again before this side could say that it is here
    in.hurry = true;
    return Status();
  }
  if (head.seq != in.received + 1)
    return error(RAY_INVALID_ARGUMENT, "message %llu of lane %u comes after message %llu", number(head.seq), head.lane,
                 number(in.received));
  if (in.arrived >= grant(head.lane))  // the last one may be longer than what was left
    return error(RAY_INVALID_ARGUMENT, "it sends more on lane %u than it was granted", head.lane);
  *fresh = true;
  in.received = head.seq;
  in.arrived += cost(size);
  if (++in.unsaid >= options_.ack_every) in.hurry = true;
  ack_at_ = std::min(ack_at_, now + options_.ack_ns);
  return Status();
}

Status Session::on_frame(int64_t now, const Head& head, std::string_view body, bool* delivered) {
  *delivered = false;
  heard_ = std::max(heard_, now);
  if (head.kind == Kind::kPing) pong_ = true;
  if (head.kind == Kind::kPing || head.kind == Kind::kPong) return Status();
  if (head.kind != Kind::kData && head.kind != Kind::kAck)
    return error(RAY_INVALID_ARGUMENT, "a frame of kind %u in the middle of a session", static_cast<unsigned>(head.kind));
  RAY_TRY(acknowledge(head.lane, head.ack, head.granted));
  if (head.kind == Kind::kAck) return Status();
  return receive(head, body.size(), now, delivered);
}

// Every frame of a lane says how far this side is there, so most acknowledgements cost nothing.
Head Session::head_for(uint32_t lane) {
  In& in = in_[lane];
  in.granted = grant(lane);
  in.unsaid = 0;
  in.hurry = false;
  Head h;
  h.lane = static_cast<uint8_t>(lane);
  h.ack = in.received;
  h.granted = in.granted;
  return h;
}

bool Session::ack_is_due(const In& in, int64_t now) const {
  return in.hurry || (in.unsaid > 0 && now >= ack_at_);
}

// A message may end beyond what was granted, never begin there: so the longest one passes the smallest window.
bool Session::may_transmit(const Out& o) const {
  if (o.transmitted == o.kept.size()) return false;
  const Sent& s = o.kept[o.transmitted];
  return s.end - cost(s.message->size()) < o.granted;
}

// A message of this lane or, where there is none, an acknowledgement that is due.
bool Session::next_of(uint32_t lane, int64_t now, Head* head, Message* body) {
  Out& o = out_[lane];
  const bool data = may_transmit(o);
  if (!data && !ack_is_due(in_[lane], now)) return false;
  *head = head_for(lane);
  head->kind = data ? Kind::kData : Kind::kAck;
  if (data) {
    const Sent& s = o.kept[o.transmitted++];
    head->seq = s.seq;
    head->size = static_cast<uint32_t>(s.message->size());
    *body = s.message;
  }
  if (!in_[kUrgent].unsaid && !in_[kNormal].unsaid) ack_at_ = INT64_MAX;
  return true;
}

bool Session::next(int64_t now, Piece* out) {
  if (!attached_) return false;
  out->head.clear();
  out->body.reset();
  Head head;
  if (pong_) {
    pong_ = false;
    head.kind = Kind::kPong;
  } else if (!next_of(kUrgent, now, &head, &out->body) && !next_of(kNormal, now, &head, &out->body)) {
    if (now - said_ < options_.ping_ns) return false;
    head.kind = Kind::kPing;
  }
  said_ = now;
  put_head(head, &out->head);
  return true;
}

Status Session::tick(int64_t now) {
  if (attached_ && now - heard_ >= options_.silent_ns)
    return error(RAY_TIMED_OUT, "nothing was heard for %.1f s", static_cast<double>(now - heard_) / 1e9);
  return Status();
}

int64_t Session::deadline() const {
  if (!attached_) return INT64_MAX;
  return std::min({ack_at_, said_ + options_.ping_ns, heard_ + options_.silent_ns});
}

}  // namespace ray::net
