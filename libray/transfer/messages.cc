// See messages.h.
#include "libray/transfer/messages.h"

#include <cstring>

namespace ray::transfer {

static_assert(std::endian::native == std::endian::little, "fields are written as they lie in memory");

namespace {

template <class T>
void put(std::string* out, T v) {
  out->append(reinterpret_cast<const char*>(&v), sizeof v);
}

// Fields one after another; after the end of the bytes every field is zero and ok() is false.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : left_(bytes) {}
  template <class T>
  T get() {
    T v{};
    if (left_.size() < sizeof v) {
      ok_ = false;
      left_ = {};
      return v;
    }
    std::memcpy(&v, left_.data(), sizeof v);
    left_.remove_prefix(sizeof v);
    return v;
  }
  std::string_view take(size_t n) {
    if (left_.size() < n) {
      ok_ = false;
      n = 0;
    }
    std::string_view v = left_.substr(0, n);
    left_.remove_prefix(n);
    return v;
  }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && left_.empty(); }
  size_t left() const { return left_.size(); }

 private:
  std::string_view left_;
  bool ok_ = true;
};

void put_head(std::string* out, const Message& m, uint32_t bytes) {
  put(out, static_cast<uint8_t>(m.kind));
  put(out, static_cast<uint8_t>(m.why));
  put(out, static_cast<uint16_t>(m.peers.size()));
  put(out, m.copy.id);
  put(out, m.copy.making);
  put(out, m.size);
  put(out, m.chunk);
  put(out, static_cast<uint32_t>(m.have.size()));
  put(out, bytes);
}

Status bad(const char* what) { return error(RAY_INVALID_ARGUMENT, "a message about objects with %s", what); }

}  // namespace

void encode(const Message& m, std::string* out) {
  put_head(out, m, static_cast<uint32_t>(m.bytes.size()));
  for (const Place& p : m.peers) put(out, p);
  for (size_t i = 0; i < m.have.words(); ++i) put(out, m.have.word(i));
  out->append(m.bytes);
}

std::string chunk_head(const Copy& copy, uint64_t size, uint32_t chunk, uint32_t length) {
  Message m;
  m.kind = Kind::kChunk;
  m.copy = copy;
  m.size = size;
  m.chunk = chunk;
  std::string out;
  put_head(&out, m, length);
  return out;
}

Status decode(std::string_view bytes, Message* out) {
  Fields f(bytes);
  Message m;
  m.kind = static_cast<Kind>(f.get<uint8_t>());
  m.why = static_cast<Why>(f.get<uint8_t>());
  const size_t peers = f.get<uint16_t>();
  m.copy.id = f.get<Id>();
  m.copy.making = f.get<uint64_t>();
  m.size = f.get<uint64_t>();
  m.chunk = f.get<uint32_t>();
  const size_t have = f.get<uint32_t>(), length = f.get<uint32_t>();
  if (!f.ok()) return bad("its head cut off");
  if (m.kind < Kind::kAsk || m.kind > Kind::kStop) return bad("an unknown kind");
  if (m.why > Why::kDone) return bad("an unknown reason");
  if (m.size > kMaxObject && m.size != kUnknownSize) return bad("an object that is too large");
  if (m.chunk >= kMaxChunks && m.chunk != kNoChunk) return bad("a chunk that no object has");
  if (peers > kMaxPeers || have > kMaxChunks || length > kMaxChunkBytes) return bad("a list that is too long");
  const size_t words = (have + 63) / 64;
  if (f.left() != peers * sizeof(Place) + words * 8 + length) return bad("a length that is not its own");
  for (size_t i = 0; i < peers; ++i) m.peers.push_back(f.get<Place>());
  m.have = Bits(have);
  for (size_t i = 0; i < words; ++i) m.have.set_word(i, f.get<uint64_t>());
  m.bytes = f.take(length);
  *out = std::move(m);
  return Status();
}

void encode(const LedgerMessage& m, std::string* out) {
  put(out, static_cast<uint8_t>(m.kind));
  put(out, m.bits);
  put(out, m.id);
  put(out, m.origin);
  put(out, m.version);
  put(out, m.floor);
  put(out, m.view);
}

Status decode(std::string_view bytes, LedgerMessage* out) {
  Fields f(bytes);
  LedgerMessage m;
  m.kind = static_cast<LedgerKind>(f.get<uint8_t>());
  m.bits = f.get<uint8_t>();
  m.id = f.get<Id>();
  m.origin = f.get<Place>();
  m.version = f.get<uint64_t>();
  m.floor = f.get<uint64_t>();
  m.view = f.get<uint64_t>();
  if (!f.done()) return bad("a length that is not its own");
  if (m.kind < LedgerKind::kLevel || m.kind > LedgerKind::kDrop) return bad("an unknown kind");
  if (m.bits > 3) return bad("an unknown level");
  *out = m;
  return Status();
}

}  // namespace ray::transfer
