// The control store's state machine under arbitrary operations. Input: operations, each as one byte
// op, one byte of flags (bits 0-2 client, bit 3 roll back afterwards), two bytes size, arguments.
// Checks that sequence numbers are dense, that a roll-back leaves nothing, and that a second
// machine fed with the records alone ends in the same state.
#include "gcs/tables.h"

#include <algorithm>

#include "fuzz/fuzz.h"
#include "libray/wire/cursor.h"

using namespace ray::gcs;

namespace {

// All rows with their sequence numbers, as a subscriber that starts anew gets them.
std::string state_of(Tables& t) {
  std::string args;
  ray::wire::Writer w(&args);
  w.array(2).uint64(UINT64_MAX).array(static_cast<size_t>(Table::kCount) - 1);
  for (uint8_t k = 1; k < static_cast<uint8_t>(Table::kCount); ++k)
    w.array(2).str(table_name(static_cast<Table>(k))).str("");
  Request poll;
  poll.client = 99;
  poll.seq = 1;
  poll.op = kPoll;
  poll.args = args;
  Outcome o = t.step(poll, 1);
  FUZZ_CHECK(o.kind == Outcome::kDone && o.code == RAY_OK && o.sn == 0);
  return o.answer;
}

}  // namespace

FUZZ_TARGET(gcs_tables) {
  Tables live, replica;
  uint64_t seq[8] = {};
  int64_t now = 1;
  while (input.size() >= 4) {
    auto byte = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
    uint8_t op = byte(0), flags = byte(1);
    size_t size = std::min<size_t>(byte(2) | byte(3) << 8, input.size() - 4);
    Request r;
    r.client = 1 + (flags & 7);
    r.seq = ++seq[flags & 7];
    r.ack_below = flags & 16 ? r.seq : 0;
    r.op = op;
    r.args = input.substr(4, size);
    input.remove_prefix(4 + size);

    uint64_t before_sn = live.last_sn();
    bool roll_back = flags & 8;
    std::string before;
    if (roll_back) before = state_of(live);
    Outcome o = live.step(r, ++now);
    // Nothing was evicted, so all is in RAM; only a poll may wait.
    FUZZ_CHECK(o.kind == Outcome::kDone || (o.kind == Outcome::kPark && op == kPoll));
    FUZZ_CHECK(o.sn == 0 || o.sn == before_sn + 1);
    FUZZ_CHECK(live.last_sn() == (o.sn ? o.sn : before_sn));
    FUZZ_CHECK((o.sn != 0) == !o.record.empty());
    if (roll_back) {
      live.rollback();
      FUZZ_CHECK(live.last_sn() == before_sn);
      FUZZ_CHECK(before == state_of(live));
      --seq[flags & 7];
      continue;
    }
    live.commit();
    if (o.sn) FUZZ_CHECK(replica.recover(o.sn, o.record));
    Outcome again = live.step(r, ++now);  // a request that was sent twice changes nothing
    live.commit();
    FUZZ_CHECK(live.last_sn() == (o.sn ? o.sn : before_sn) || o.sn == 0);
    FUZZ_CHECK(o.sn == 0 || (again.code == o.code && again.answer == o.answer));
  }
  FUZZ_CHECK(state_of(live) == state_of(replica));
}
