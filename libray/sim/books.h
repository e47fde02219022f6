// More of what must hold of every run, beside checkers.h: what processes are told of objects, actors and requests. Books of
// their own: a checker learns what processes wrote and what they were told, and looks into nobody's tables. A complaint is
// "CHECKER: what"; the first one ends the run. One thread.
//
//   holds   no object is freed while somebody holds it; what nobody holds is freed
//   told    who created or asked for an actor is told what became of it, in order, and of no death that was none; each request
//           of a process that lives is answered, once
//   names   a name has one owner, is found only while its owner lives, and is free after its owner's death
//   left    of a job that is over nothing is left
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "libray/base/ids.h"
#include "libray/wire/protocol.h"

namespace ray::sim {

// An id that says its number, not in order.
inline Id id_of(uint32_t n) {
  Id id{};
  id.b[0] = static_cast<uint8_t>(n * 167);
  for (int i = 0; i < 4; ++i) id.b[12 + i] = static_cast<uint8_t>(n >> 8 * i);
  return id;
}
inline uint32_t number_of(const Id& id) {
  uint32_t n = 0;
  for (int i = 0; i < 4; ++i) n |= static_cast<uint32_t>(id.b[12 + i]) << 8 * i;
  return n;
}

// The books of `holds`. Counted when it is written: what is written before a death counts until that is known.
class Holds {
 public:
  explicit Holds(std::string* broken) : broken_(broken) {}
  void said(const Id& object, uint64_t process, int64_t more);
  void died(uint64_t process);
  void freed(const Id& object);
  void at_rest() const;
  size_t count() const { return objects_.size(); }

 private:
  struct Object {
    std::map<uint64_t, int64_t> holders;  // no zeros
    bool freed = false;
  };
  std::string* broken_;
  std::map<Id, Object> objects_;
  std::set<uint64_t> dead_;
};

// The books of `told`, of actors.
class Fates {
 public:
  explicit Fates(std::string* broken) : broken_(broken) {}
  struct Told {
    bool any = false;
    uint32_t state = wire::kActorPending, incarnation = 0;
    uint64_t worker = 0;
    int64_t since = 0;
  };
  void asked(const Id& actor, uint64_t process, int64_t now) { asked_[actor][process].since = now; }
  void died(uint64_t process);  // it is told nothing any more
  // The truth, as the journal and the workers have it.
  void became(const Id& actor, uint32_t state, int64_t now);
  void runs(const Id& actor, uint64_t worker, uint32_t incarnation, int64_t now);
  void told(const Id& actor, uint64_t process, const Told& what);
  bool dead(const Id& actor) const;
  // Of what has not changed since `before`, everybody who asked before knows.
  void look(int64_t before) const;

 private:
  void complain(const std::string& what) const {
    if (broken_->empty()) *broken_ = "told: " + what;
  }
  std::string* broken_;
  std::map<Id, std::map<uint64_t, Told>> asked_;
  std::map<Id, Told> truth_;
};

// The books of `told`, of requests.
class Requests {
 public:
  explicit Requests(std::string* broken) : broken_(broken) {}
  uint64_t asked(uint64_t process) {
    open_[++next_] = process;
    return next_;
  }
  void answered(uint64_t request);
  void died(uint64_t process) { std::erase_if(open_, [&](const auto& r) { return r.second == process; }); }
  void at_rest() const;

 private:
  std::string* broken_;
  std::map<uint64_t, uint64_t> open_;  // -> process
  std::set<uint64_t> done_;
  uint64_t next_ = 0;
};

}  // namespace ray::sim
