// Bytes from another node about demands: to the head's scheduler in the middle of its work, and to a node as the answer.
#include "fuzz/fuzz.h"
#include "libray/node/global_side.h"

using namespace ray;
using namespace ray::cluster;

FUZZ_TARGET(place) {
  node::GlobalSide side(1);
  for (NodeIndex i = 0; i < 3; ++i) {
    Row row;
    row.index = i, row.epoch = i + 1;
    row.about.resources = {{"CPU", 4}, {"x", i}};
    row.about.relay = i < 2 ? "tcp://n:1" : "";
    side.row(row, 1);
  }
  for (int64_t now : {10, 20'000'000, 2'000'000'000}) {  // the second finds what waits, the third nobody who answers
    auto answer = side.place(1, input, now);
    side.tick(now + 6'000'000);
    FUZZ_CHECK(side.scheduler().check().empty());
    if (!answer.ok()) continue;
    std::vector<Verdict> verdicts;
    Questions asked;
    FUZZ_CHECK(decode(*answer, &verdicts).ok() && decode(input, &asked).ok() && verdicts.size() == asked.questions.size());
    for (const Verdict& v : verdicts) FUZZ_CHECK(v.node == kNoNode || v.node < 2);
  }
  Questions q;
  if (decode(input, &q).ok()) {
    Questions again;
    FUZZ_CHECK(decode(encode(q), &again).ok() && encode(again) == encode(q));
  }
  std::vector<Verdict> v;
  if (decode(input, &v).ok()) {
    std::vector<Verdict> again;
    FUZZ_CHECK(decode(encode(v), &again).ok() && again.size() == v.size());
  }
}
