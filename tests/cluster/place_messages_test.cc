// The wire format of what a node asks the head's scheduler, and of the answer.
#include <gtest/gtest.h>

#include "libray/cluster/place.h"
#include "libray/wire/limits.h"

namespace ray::cluster {
namespace {

TaskId task(uint8_t number) {
  TaskId id;
  id.b[0] = number;
  return id;
}

Questions questions() {
  Questions q;
  q.load.available = {{"CPU", 1}};
  q.load.held = {{"CPU", 2}};
  q.load.queued = {{"CPU", 40}, {"x", 0.5}};
  q.load.running = 3, q.load.waiting = 4;
  q.questions.push_back({7, task(1), 2, false, {{"CPU", 1}, {"x", 0.5}}});
  q.questions.push_back({UINT64_MAX, task(2), UINT32_MAX, true, {}});
  return q;
}

TEST(PlaceMessages, ComeBackAsTheyWere) {
  const Questions q = questions();
  Questions back;
  ASSERT_TRUE(decode(encode(q), &back).ok());
  EXPECT_EQ(back.load.queued, q.load.queued);
  EXPECT_EQ(back.load.held, q.load.held);
  EXPECT_EQ(back.load.waiting, 4u);
  ASSERT_EQ(back.questions.size(), 2u);
  EXPECT_EQ(back.questions[0].number, 7u);
  EXPECT_EQ(back.questions[0].task, task(1));
  EXPECT_EQ(back.questions[0].attempt, 2u);
  EXPECT_EQ(back.questions[0].needs, q.questions[0].needs);
  EXPECT_TRUE(back.questions[1].actor);
  EXPECT_EQ(encode(back), encode(q));

  const std::vector<Verdict> v = {{3, 9, 0, false, ""}, {kNoNode, 0, 5, true, "why"}};
  std::vector<Verdict> again;
  ASSERT_TRUE(decode(encode(v), &again).ok());
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0].node, 3u);
  EXPECT_EQ(again[0].epoch, 9u);
  EXPECT_EQ(again[1].node, kNoNode);
  EXPECT_EQ(again[1].again_ns, 5);
  EXPECT_TRUE(again[1].infeasible);
  EXPECT_EQ(again[1].text, "why");
}

TEST(PlaceMessages, WhatIsTooMuchIsRefused) {
  Questions q = questions(), out;
  q.questions.resize(kMaxQuestions + 1);
  EXPECT_FALSE(decode(encode(q), &out).ok());
  for (const wire::Resources& needs :
       {wire::Resources{{"", 1}}, {{std::string(wire::kMaxResourceName + 1, 'x'), 1}}, {{"CPU", 1e-6}}, {{"CPU", -1}},
        {{"CPU", 1e300}}}) {
    Questions bad = questions(), no;
    bad.questions[0].needs = needs;
    EXPECT_FALSE(decode(encode(bad), &no).ok()) << needs.begin()->first;
  }
  std::vector<Verdict> verdicts = {{1, 1, -1, false, ""}}, none;
  EXPECT_FALSE(decode(encode(verdicts), &none).ok());
  none.clear();
  verdicts = {{kNoNode, 0, 1, false, std::string(1 << 20, 'x')}};  // cut, not refused
  ASSERT_TRUE(decode(encode(verdicts), &none).ok());
  EXPECT_EQ(none[0].text.size(), kMaxVerdictText);
}

TEST(PlaceMessages, BytesOfNobodyAreRefused) {
  const std::string good = encode(questions()), answer = encode(std::vector<Verdict>{{3, 9, 0, false, "text"}});
  for (const std::string* bytes : {&good, &answer})
    for (size_t n = 0; n < bytes->size(); ++n) {
      Questions q;
      std::vector<Verdict> v;
      EXPECT_FALSE(decode(std::string_view(*bytes).substr(0, n), &q).ok()) << n;
      EXPECT_FALSE(decode(std::string_view(*bytes).substr(0, n), &v).ok()) << n;
    }
  uint64_t seed = 1;
  for (int round = 0; round < 20000; ++round) {  // whatever comes out, nothing breaks
    std::string bytes = round % 2 ? good : answer;
    for (int k = 0; k < 3; ++k) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      bytes[(seed >> 33) % bytes.size()] = static_cast<char>(seed >> 56);
    }
    Questions q;
    std::vector<Verdict> v;
    if (decode(bytes, &q).ok()) {
      for (const Question& one : q.questions)
        for (const auto& [name, amount] : one.needs) EXPECT_TRUE(amount >= 0 && amount <= wire::kMaxResourceAmount);
    }
    (void)decode(bytes, &v);
  }
}

TEST(PlaceMessages, EnoughIsEnough) {
  EXPECT_TRUE(enough({}, {}));
  EXPECT_TRUE(enough({}, {{"CPU", 0}}));
  EXPECT_TRUE(enough({{"CPU", 0.3}}, {{"CPU", 0.1 + 0.2}}));
  EXPECT_FALSE(enough({{"CPU", 1}}, {{"CPU", 1.0001}}));
  EXPECT_FALSE(enough({{"CPU", 1}}, {{"CPU", 1}, {"x", 0.0001}}));
}

}  // namespace
}  // namespace ray::cluster
