// Bytes from another node: to a listener that has not proved anything to anybody, and in the middle of a session.
#include "fuzz/fuzz.h"
#include "libray/net/core/endpoint.h"

using namespace ray;
using namespace ray::net;

namespace {

Identity node(uint8_t number) {
  Identity who;
  who.node.b[0] = number;
  who.epoch = 1;
  who.incarnation = number;
  return who;
}

struct Side {
  explicit Side(uint8_t number) : endpoint(node(number), "token", [this] { return ++random; }) {}
  uint64_t random = 0;
  Endpoint endpoint;
  Actions actions;
};

std::string written(Side& side) {
  std::string bytes;
  for (Action& a : side.actions)
    for (Piece& p : a.pieces) bytes += p.head + (p.body ? *p.body : "");
  side.actions.clear();
  return bytes;
}

// The bytes in two pieces; then some time passes, and the user consumes what came.
void feed(Side& side, std::string_view bytes) {
  const size_t cut = bytes.empty() ? 0 : static_cast<uint8_t>(bytes[0]) % bytes.size();
  side.endpoint.received(1, bytes.substr(0, cut), 10, &side.actions);
  side.endpoint.received(1, bytes.substr(cut), 20, &side.actions);
  const Actions seen = std::move(side.actions);
  side.actions.clear();
  for (const Action& a : seen)
    if (a.kind == Action::kDeliver) side.endpoint.consumed(a.peer, a.lane, a.text.size(), 30, &side.actions);
  side.endpoint.written(1, 40, &side.actions);
  side.endpoint.tick(1'000'000'000, &side.actions);
  side.endpoint.tick(60'000'000'000, &side.actions);
  side.endpoint.closed(1, "closed", 60'000'000'001, &side.actions);
}

}  // namespace

FUZZ_TARGET(net) {
  Side stranger(2);
  stranger.endpoint.accepted(1, "somewhere", 1, &stranger.actions);
  feed(stranger, input);

  Side a(1), b(2);
  b.endpoint.accepted(1, "a", 1, &b.actions);
  a.endpoint.dial(1, "b", 0, 1, &a.actions);
  a.endpoint.dialled(1, 1, 1, &a.actions);
  for (int round = 0; round < 3; ++round) {
    b.endpoint.received(1, written(a), 2, &b.actions);
    b.endpoint.written(1, 2, &b.actions);
    a.endpoint.written(1, 2, &a.actions);
    a.endpoint.received(1, written(b), 2, &a.actions);
  }
  FUZZ_CHECK(b.endpoint.is_up(1));
  for (int i = 0; i < 5; ++i) b.endpoint.enqueue(1, kNormal, std::make_shared<std::string>(100, 'x'), 3, &b.actions);
  feed(b, input);
}
