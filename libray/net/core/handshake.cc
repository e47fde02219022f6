// See handshake.h.
#include "libray/net/core/handshake.h"

#include <cstring>

#include "libray/base/sha256.h"
#include "libray/wire/msgpack.h"

namespace ray::net {

namespace {

constexpr std::string_view kMagic = "libray node";
constexpr size_t kNonce = 16;

std::string pack_resume(const Resume& r) {
  wire::Packer p;
  p.array(2 * kLanes);
  for (const auto& lane : r.lane) p.uint64(lane.received).uint64(lane.granted);
  return std::move(p.bytes());
}

bool read_resume(std::string_view bytes, Resume* out) {
  wire::Reader r(bytes);
  uint32_t n;
  if (!r.array(&n) || n != 2 * kLanes) return false;
  for (auto& lane : out->lane)
    if (!r.uint64(&lane.received) || !r.uint64(&lane.granted)) return false;
  return r.at_end();
}

bool same(std::string_view x, std::string_view y) {  // in constant time
  if (x.size() != y.size()) return false;
  uint8_t differ = 0;
  for (size_t i = 0; i < x.size(); ++i) differ |= static_cast<uint8_t>(x[i] ^ y[i]);
  return differ == 0;
}

}  // namespace

Handshake::Handshake(bool dialer, std::string_view token, Greeting own) : dialer_(dialer), token_(token) {
  wire::Packer p;
  p.array(7).str(kMagic).uint64(own.version).id(own.who.node).uint64(own.who.epoch).uint64(own.who.incarnation);
  p.uint64(own.channel).bin(own.nonce);
  own_hello_ = std::move(p.bytes());
  hello_ = frame_of(Kind::kHello, own_hello_);
}

// The version comes before whatever may differ between versions.
Status Handshake::on_hello(std::string_view body) {
  wire::Reader r(body);
  uint32_t n;
  std::string_view magic, node, nonce;
  Greeting g;
  if (!r.array(&n) || n < 2 || !r.str(&magic) || magic != kMagic || !r.uint32(&g.version))
    return error(RAY_INVALID_ARGUMENT, "the other side is no node of libray");
  if (g.version != kNetVersion)
    return error(RAY_UNSUPPORTED, "the other node speaks version %u of the protocol between nodes, this one %u: "
                 "run the same libray on both", g.version, kNetVersion);
  if (n != 7 || !r.bin(&node) || node.size() != kIdSize || !r.uint32(&g.who.epoch) ||
      !r.uint64(&g.who.incarnation) || !r.uint32(&g.channel) || !r.bin(&nonce) || nonce.size() != kNonce ||
      !r.at_end())
    return error(RAY_INVALID_ARGUMENT, "the other node's greeting is malformed");
  std::memcpy(g.who.node.b, node.data(), kIdSize);
  g.nonce = nonce;
  peer_ = std::move(g);
  peer_hello_ = body;
  return Status();
}

std::string Handshake::mac(bool by_dialer, std::string_view resume) const {
  // Each part with its length, so that no two lists of parts are the same text.
  wire::Packer text;
  text.array(4).str(by_dialer ? "dialer" : "listener");
  text.bin(dialer_ ? own_hello_ : peer_hello_).bin(dialer_ ? peer_hello_ : own_hello_).bin(resume);
  const auto digest = hmac_sha256(token_, text.bytes());
  return std::string(reinterpret_cast<const char*>(digest.data()), digest.size());
}

std::string Handshake::proof(const Resume& own) const {
  const std::string resume = pack_resume(own);
  wire::Packer p;
  p.array(2).bin(mac(dialer_, resume)).bin(resume);
  return frame_of(Kind::kProof, p.bytes());
}

Status Handshake::on_proof(std::string_view body, Resume* peer) const {
  wire::Reader r(body);
  uint32_t n;
  std::string_view proof, resume;
  if (!r.array(&n) || n != 2 || !r.bin(&proof) || !r.bin(&resume) || !r.at_end())
    return error(RAY_INVALID_ARGUMENT, "the other node's proof is malformed");
  if (!same(proof, mac(!dialer_, resume)))
    return error(RAY_INVALID_ARGUMENT, "the other node has another token than this cluster's");
  if (!read_resume(resume, peer)) return error(RAY_INVALID_ARGUMENT, "the other node's proof is malformed");
  return Status();
}

}  // namespace ray::net
