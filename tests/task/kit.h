// Tasks, links and shapes that are nothing but what the rules of libray/task look at.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "libray/task/call_queue.h"
#include "libray/task/cancellation.h"
#include "libray/task/lease_policy.h"
#include "libray/task/pending.h"

namespace ray::task {

struct Plain;
struct PlainLink;
struct PlainShape;

struct PlainKit {
  using Task = Plain;
  using Link = PlainLink;
  using Shape = PlainShape;
  static inline Flaw planted = Flaw::kNone;
  static int64_t run_ns(const Plain* t);
  static void forget_run_ns(Plain* t);
  static uint64_t record_begin(const Plain* t);
  static bool flaw(Flaw f) { return f == planted; }
  static bool checked() { return true; }
  static void broken(const char* what) { throw std::logic_error(what); }
};

struct Plain {
  State state = State::kWaiting;
  bool retry_on_error = false, cancelled = false, forced = false, started = false, shrinking = false, aside = false;
  int32_t retries_left = 0;
  uint32_t attempt = 0;
  uint64_t seq = 0, submitted = 0, tag = 0, ring_end = 0;
  int64_t est_ns = 0, run = -1;
  Plain *prev = nullptr, *next = nullptr;
  Lease<PlainKit>* lease = nullptr;
};
struct PlainLink : Link<PlainKit> {};
struct PlainShape : Shape<PlainKit> {};

inline int64_t PlainKit::run_ns(const Plain* t) { return t->run; }
inline void PlainKit::forget_run_ns(Plain* t) { t->run = -1; }
inline uint64_t PlainKit::record_begin(const Plain* t) { return t->ring_end - 1; }

using Policy = LeasePolicy<PlainKit>;
using Calls = CallQueue<PlainKit>;

// A client with its tasks and links, and what it was told to do, in words: "want 4", "return 7", "ask back 0".
struct Client {
  Policy policy;
  std::deque<Plain> tasks;
  std::deque<PlainLink> links;
  std::vector<std::string> said;
  Policy::Actions todo;

  Plain* submit(PlainShape* s, int64_t run = -1) {
    Plain* t = &tasks.emplace_back();
    t->submitted = t->tag = tasks.size();
    t->run = run;
    t->est_ns = run < 0 ? Policy::kUnknownNs : run;
    policy.submitted(s, t->est_ns);
    enter<PlainKit>(t, State::kQueued);
    s->backlog.push_back(t);
    pump(s);
    return t;
  }
  void pump(PlainShape* s) {
    policy.pump(s, [](Plain* t, Policy::Lease* l) {
      enter<PlainKit>(t, State::kPushed);
      t->lease = l;
      l->link->inflight.push_back(t);
      Policy::pushed(l, t->est_ns);
      return true;
    });
    if (policy.raise_want(s)) said.push_back("want " + std::to_string(s->want_sent));
  }
  Policy::Lease* grant(PlainShape* s, uint32_t number, int64_t now = 1) {
    Policy::Lease* l = policy.granted(s, &links.emplace_back(), number, now);
    if (l) pump(s);
    return l;
  }
  void unlink(Plain* t) {
    Policy::Lease* l = t->lease;
    l->link->inflight.remove(t);
    Policy::left(l, t);
    t->lease = nullptr;
  }
  void done(PlainShape* s, Plain* t, int64_t now) {
    Policy::Lease* l = t->lease;
    Policy::answered(l);
    unlink(t);
    enter<PlainKit>(t, State::kFree);
    policy.ended(s, t->est_ns);
    Policy::heard(l);
    l->link->last_result_ns = now;
    if (l->link->inflight.empty()) policy.idle(l, now, &todo);
    carry_out();
    pump(s);
  }
  void tick(int64_t now) {
    for (size_t at = 0; at < policy.active().size();) {
      PlainShape* s = policy.active()[at];
      const Policy::Seen seen = policy.look(s, now, &todo);
      carry_out();
      if (seen.pump) pump(s);
      at += policy.settle(at, seen, &todo);
      carry_out();
    }
  }
  void carry_out() {
    for (const auto& a : todo) {
      size_t link = 0;
      while (link < links.size() && &links[link] != a.link) ++link;
      if (a.kind == Policy::Action::kWant) said.push_back("want " + std::to_string(a.number));
      if (a.kind == Policy::Action::kReturn) said.push_back("return " + std::to_string(a.number));
      if (a.kind == Policy::Action::kAskBack) said.push_back("ask back " + std::to_string(link));
    }
    todo.clear();
  }
  std::vector<std::string> take() { return std::exchange(said, {}); }
};

}  // namespace ray::task
