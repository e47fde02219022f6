// Bytes from another node about objects: to a planner that pulls, a server that serves and a ledger, all in the middle of
// their work. The input is cut into messages by their lengths.
#include "fuzz/fuzz.h"
#include "libray/transfer/ledger.h"
#include "libray/transfer/planner.h"
#include "libray/transfer/server.h"

using namespace ray;
using namespace ray::transfer;

namespace {

Copy copy_of(uint8_t number) {
  Copy copy;
  copy.id.b[0] = number;
  copy.making = 1;
  return copy;
}

// A store that takes everything at once and checks what it is told.
struct Node {
  Node() : planner({1, 1}, 1 << 20, 1 << 20, pull_options()), server(serve_options()), ledger({1, 1}) {
    LedgerActions out;
    for (uint32_t i = 1; i <= 3; ++i) ledger.joined(i, {i, 1}, 1, &out);
    ledger.hold(copy_of(1).id, {2, 1}, 1, &out);
    ledger.stored(copy_of(2).id, {1, 1}, 1, &out);
    ledger.sends(copy_of(1).id, {3, 1});
    PullActions pulls;
    for (uint32_t i = 2; i <= 3; ++i) planner.up({i, 1}, 0, 1, &pulls);
    planner.request({1, Rank::kNext, {{copy_of(1), 300, {{2, 1}}}, {copy_of(2), kUnknownSize, {{3, 1}}}}}, 1, &pulls);
    apply(pulls);
    ServeActions serves;
    Message ask;
    ask.copy = copy_of(3);
    ask.chunk = 0;
    server.message({2, 1}, 0, ask, 1, &serves);
    apply(serves);
  }
  static PullOptions pull_options() {
    PullOptions o;
    o.chunk = o.inline_max = 64;
    o.window = 256;
    return o;
  }
  static ServeOptions serve_options() {
    ServeOptions o;
    o.chunk = o.inline_max = 64;
    return o;
  }
  void apply(PullActions actions) {
    for (const PullAction& a : actions) {
      PullActions more;
      ServeActions serves;
      if (a.kind == PullAction::kPin) planner.absent(a.copy, 2, &more);
      if (a.kind == PullAction::kCreate) size[a.copy] = a.size, server.started(a.copy, a.size, 2, &serves);
      if (a.kind == PullAction::kAbandon) size.erase(a.copy), server.gone(a.copy, 2, &serves);
      if (a.kind == PullAction::kSeal) server.complete(a.copy, 2, &serves);
      if (a.kind == PullAction::kLocate) planner.located(a.copy, a.round, kUnknownSize, {}, 2, &more);
      if (a.kind == PullAction::kWrite) {
        FUZZ_CHECK(size.count(a.copy) && size[a.copy] == a.size);
        FUZZ_CHECK(uint64_t{a.chunk} * 64 + a.message.bytes.size() <= a.size);
        server.got(a.copy, a.size, a.chunk, 2, &serves);
      }
      FUZZ_CHECK(planner.used() <= 1 << 20);
      apply(std::move(more));
      apply(std::move(serves));
    }
  }
  void apply(ServeActions actions) {
    for (const ServeAction& a : actions) {
      ServeActions more;
      if (a.kind == ServeAction::kPin && a.copy == copy_of(3)) server.pinned(a.copy, 1000, true, 2, &more);
      else if (a.kind == ServeAction::kPin) server.absent(a.copy, 2, &more);
      if (a.kind == ServeAction::kBytes) {
        FUZZ_CHECK(uint64_t{a.chunk} * 64 <= a.size);
        tickets.push_back(a.ticket);
      }
      FUZZ_CHECK(server.flying() <= 64 && server.from_disk() <= 8);
      apply(std::move(more));
    }
  }
  void take(Place from, std::string_view bytes) {
    Message m;
    if (decode(bytes, &m).ok()) {
      std::string again;
      encode(m, &again);
      FUZZ_CHECK(again.size() == bytes.size());
      PullActions pulls;
      ServeActions serves;
      planner.message(from, 0, m, 3, &pulls);
      apply(std::move(pulls));
      server.message(from, 0, m, 3, &serves);
      apply(std::move(serves));
    }
    LedgerMessage l;
    LedgerActions out;
    if (decode(bytes, &l).ok()) ledger.message(from, l, 3, &out);
  }
  void end() {
    for (size_t i = 0; i < tickets.size(); ++i) {
      ServeActions serves;
      server.sent(tickets[i], i % 3 > 0, 4, &serves);
      apply(std::move(serves));
    }
    const int64_t late = 100'000'000'000;
    PullActions pulls;
    ServeActions serves;
    LedgerActions out;
    planner.tick(late, &pulls);
    apply(std::move(pulls));
    server.tick(late, &serves);
    apply(std::move(serves));
    ledger.tick(late, &out);
    PullActions died;
    planner.died({2, 1}, late, &died);
    planner.release(1, late, &died);
    apply(std::move(died));
    FUZZ_CHECK(planner.requests() == 0 && planner.pulls() == 0 && planner.used() == 0);
    ServeActions gone;
    for (uint32_t i = 2; i <= 3; ++i) server.died({i, 1}, late, &gone);
    ledger.died(4, {2, 1}, late, &out);
  }

  Planner planner;
  Server server;
  Ledger ledger;
  std::map<Copy, uint64_t> size;
  std::vector<uint64_t> tickets;
};

}  // namespace

// Each message: a byte that says from whom, two of its length, and itself.
FUZZ_TARGET(transfer) {
  Node node;
  while (input.size() >= 3) {
    const auto at = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
    const Place from{2u + at(0) % 2, 1};
    const size_t length = std::min<size_t>(at(1) | at(2) << 8, input.size() - 3);
    node.take(from, input.substr(3, length));
    input.remove_prefix(3 + length);
  }
  node.end();
}
