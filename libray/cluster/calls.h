// Requests of one node to another and their answers. Pure: events in, actions out; messages travel by membership's
// sessions, through the head.
//
// A request is named by its caller and a number that the caller never uses twice, so it may come twice: the second finds
// the answer of the first, or waits for it. Each call ends exactly once: with its answer, with the death of the node, or
// when its time is over, and then the error names the node that did not answer.
#pragma once
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libray/cluster/messages.h"

namespace ray::cluster {

struct CallOptions {
  size_t kept_answers = 256, kept_bytes = 1 << 20;  // for requests that come twice
};

struct CallAction {
  enum Kind {
    kSend,   // message
    kServe,  // message: to be answered with answer(), once
    kDone,   // number, code, text: the end of a call
  } kind;
  Message message;
  uint64_t number = 0;
  int32_t code = RAY_OK;
  std::string text;
};
using CallActions = std::vector<CallAction>;

class Calls {
 public:
  explicit Calls(const CallOptions& options = {}) : options_(options) {}
  // ---- who asks
  uint64_t call(NodeIndex to, uint32_t op, std::string body, int64_t until, CallActions* out);
  void on_answer(const Message& m, CallActions* out);
  void on_dead(const Row& row, CallActions* out);
  void tick(int64_t now, CallActions* out);
  int64_t deadline() const;
  // ---- who answers
  void on_request(Message m, CallActions* out);
  void answer(NodeIndex to, uint64_t number, int32_t code, std::string body, CallActions* out);

 private:
  struct Call {
    NodeIndex to;
    int64_t until;
  };
  struct Served {
    bool answered = false;
    int32_t code = RAY_OK;
    std::string text;
  };
  using Name = std::pair<NodeIndex, uint64_t>;
  void done(uint64_t number, int32_t code, std::string text, CallActions* out);
  void reply(const Name& name, const Served& s, CallActions* out) const;

  const CallOptions options_;
  std::map<uint64_t, Call> calls_;
  uint64_t next_ = 1;
  std::map<Name, Served> served_;
  std::deque<Name> kept_;  // answered, oldest first
  size_t kept_bytes_ = 0;
};

}  // namespace ray::cluster
