// Frames of a connection between two nodes: a head of 32 bytes, little endian, and a body. Pure.
//
// Who: the handshake and the session, which make them and read them; fuzz/net.cc. Nobody vouches for the bytes: a
// reader never takes more than the largest body that is allowed at the moment, and says of bad bytes what is wrong.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "libray/base/status.h"

namespace ray::net {

// Two lanes share a connection. What is urgent (heartbeats, grants, acknowledgements of the upper layers) overtakes the
// rest in the sender's queue; within a lane the order is kept.
enum Lane : uint8_t { kUrgent, kNormal, kLanes };

enum class Kind : uint8_t {
  kHello = 1,  // who I am: the first frame of each side
  kProof,      // that I know the token, and how far I have received: the second
  kData,       // one message
  kAck,        // head alone: how far this lane was received, and what may be sent
  kPing,       // head alone: the other side answers with kPong
  kPong,
  kBye,  // a sentence for people: why the connection ends
};

struct Head {
  uint32_t size = 0;  // of the body
  Kind kind = Kind::kData;
  uint8_t lane = 0;
  uint64_t seq = 0;      // of the message in its lane, from 1
  uint64_t ack = 0;      // the sender of this frame has received all messages of the lane up to here
  uint64_t granted = 0;  // bytes of the lane that the other side may have sent, since the session began
};

inline constexpr size_t kHeadSize = 32;
inline constexpr uint32_t kMaxMessage = 16u << 20;  // longer values travel in parts
inline constexpr uint32_t kMaxGreeting = 1024;      // before the other side has proved itself, and a kBye

void put_head(const Head& h, std::string* out);
std::string frame_of(Kind kind, std::string_view body);

// Cuts a byte stream into frames.
class FrameReader {
 public:
  enum class Next { kFrame, kMore, kBad };
  explicit FrameReader(uint32_t max_body) : max_body_(max_body) {}
  void limit(uint32_t max_body) { max_body_ = max_body; }
  void feed(std::string_view bytes) { bytes_.append(bytes); }
  // The body is valid until the next feed. kBad: the stream is over, *why says what was wrong.
  Next next(Head* head, std::string_view* body, std::string* why);

 private:
  uint32_t max_body_;
  std::string bytes_;
  size_t at_ = 0;
};

}  // namespace ray::net
