// What a node asks the scheduler at the head, and what that answers: where demands that wait should go. Plain values and
// their MessagePack form. Pure.
//
// Who: libray/node/cluster_side asks, libray/node/global_side answers; they travel as the bodies of requests (calls.h).
// Nobody vouches for the bytes: decode() says of bad ones what is wrong. What one request may hold is bounded, and so is
// what an answer to it takes.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libray/cluster/messages.h"

namespace ray::cluster {

inline constexpr size_t kMaxQuestions = 1024;           // of one request,
inline constexpr size_t kMaxQuestionBytes = 256 << 10;  // after which no further one is put into it
inline constexpr size_t kMaxVerdictText = 1024;

// `number` names the question: whoever asks with it again (an answer was lost, or was: nowhere now) means the same one.
struct Question {
  uint64_t number = 0;
  TaskId task;  // for people; an actor's id, when it is one
  uint32_t attempt = 0;
  bool actor = false;
  wire::Resources needs;
};

struct Questions {
  Load load;  // of the asker, as it is now: what its heartbeat said may be older than what it asks for
  std::vector<Question> questions;
};

// A node, or nowhere now: then it is to be asked again after so long.
struct Verdict {
  NodeIndex node = kNoNode;
  uint32_t epoch = 0;
  int64_t again_ns = 0;
  bool infeasible = false;  // no living node could ever take it
  std::string text;         // why
};

// By totals.
bool enough(const wire::Resources& totals, const wire::Resources& needs);

std::string encode(const Questions& q);
Status decode(std::string_view bytes, Questions* out);
size_t encoded_size(const Question& q);
// One for each question, in their order. Longer texts are cut.
std::string encode(const std::vector<Verdict>& verdicts);
Status decode(std::string_view bytes, std::vector<Verdict>* out);

}  // namespace ray::cluster
