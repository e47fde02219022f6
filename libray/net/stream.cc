// See stream.h.
#include "libray/net/stream.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace ray::net {

namespace {
constexpr size_t kReadBytes = 256 << 10, kStrangersBytes = 2 << 10;
constexpr unsigned kParts = 8;           // that NNG takes at a time
constexpr size_t kWorthAPart = 8 << 10;  // shorter ones are copied together
}  // namespace

std::string address_text(const nng_sockaddr& a) {
  char text[INET6_ADDRSTRLEN] = "";
  switch (a.s_family) {
    case NNG_AF_INET:
      ::inet_ntop(AF_INET, &a.s_in.sa_addr, text, sizeof text);
      return strprintf("%s:%u", text, ntohs(a.s_in.sa_port));
    case NNG_AF_INET6:
      ::inet_ntop(AF_INET6, a.s_in6.sa_addr, text, sizeof text);
      return strprintf("[%s]:%u", text, ntohs(a.s_in6.sa_port));
    default: return "this machine";
  }
}

std::unique_ptr<Stream> Stream::make(Conn conn, nng_stream* stream, Owner* owner) {
  std::unique_ptr<Stream> s(new Stream(conn, stream, owner));
  s->in_.resize(kStrangersBytes);
  if (nng_aio_alloc(&s->read_, on_read, s.get()) != 0 || nng_aio_alloc(&s->write_, on_sent, s.get()) != 0)
    return nullptr;
  return s;
}

Stream::~Stream() {
  nng_stream_close(stream_);
  for (nng_aio* aio : {read_, write_})
    if (aio) {
      nng_aio_stop(aio);  // waits for a callback that runs
      nng_aio_free(aio);
    }
  nng_stream_free(stream_);
}

std::string Stream::peer_address() const {
  nng_sockaddr address;
  if (nng_stream_get_addr(stream_, NNG_OPT_REMADDR, &address) != 0) return "an unknown address";
  return address_text(address);
}

void Stream::trust() {
  if (in_.size() < kReadBytes) in_.resize(kReadBytes);
}

void Stream::read_on() {
  nng_iov iov{in_.data(), in_.size()};
  nng_aio_set_iov(read_, 1, &iov);
  nng_stream_recv(stream_, read_);
}

void Stream::on_read(void* arg) {
  auto* self = static_cast<Stream*>(arg);
  const int rv = nng_aio_result(self->read_);
  const size_t n = rv == 0 ? nng_aio_count(self->read_) : 0;
  if (rv == NNG_ECANCELED) return;  // by the destructor
  if (rv != 0 || n == 0)
    return self->owner_->on_broken(self->conn_, rv == 0 || rv == NNG_ECLOSED || rv == NNG_ECONNSHUT
                                                    ? "the other side closed it" : nng_strerror(rv));
  self->owner_->on_bytes(self->conn_, std::string_view(self->in_).substr(0, n));
}

// Heads and short bodies are put together, so that a write of many small messages is one part.
void Stream::write(std::vector<Piece> pieces) {
  out_ = std::move(pieces);
  parts_.clear();
  part_ = 0;
  for (size_t i = 0; i < out_.size(); ++i) {
    std::string& text = out_[i].head;
    size_t last = i;
    while (!(out_[last].body && out_[last].body->size() >= kWorthAPart)) {
      if (out_[last].body) {
        text += *out_[last].body;
        out_[last].body.reset();
      }
      if (last + 1 == out_.size()) break;
      text += out_[++last].head;
    }
    parts_.push_back(text);
    if (out_[last].body) parts_.push_back(*out_[last].body);
    i = last;
  }
  send_some();
}

void Stream::send_some() {
  nng_iov iov[kParts];
  unsigned n = 0;
  for (; n < kParts && part_ + n < parts_.size(); ++n)
    iov[n] = {const_cast<char*>(parts_[part_ + n].data()), parts_[part_ + n].size()};
  nng_aio_set_iov(write_, n, iov);
  nng_stream_send(stream_, write_);
}

void Stream::on_sent(void* arg) {
  auto* self = static_cast<Stream*>(arg);
  if (const int rv = nng_aio_result(self->write_); rv != 0) {
    if (rv != NNG_ECANCELED) self->owner_->on_broken(self->conn_, nng_strerror(rv));
    return;
  }
  for (size_t n = nng_aio_count(self->write_); n > 0;) {
    std::string_view& part = self->parts_[self->part_];
    const size_t taken = std::min(n, part.size());
    part.remove_prefix(taken);
    n -= taken;
    if (part.empty()) ++self->part_;
  }
  while (self->part_ < self->parts_.size() && self->parts_[self->part_].empty()) ++self->part_;
  if (self->part_ < self->parts_.size()) return self->send_some();
  self->owner_->on_written(self->conn_);
}

}  // namespace ray::net
