// What cannot be decided by the rings that were read so far. A process may ask for something that another one has told of in
// a ring that this pass had gone by already: an actor that is not known may just have been created, a name may just have
// been given up, a function defined, an object made again. So these wait until all rings were read to their tails by a reading
// that began after they were asked. Pure; used by NodeCore.
//
// Invariants: what is asked during a reading waits for the next one; what waits is carried out in the order in which it was
// asked; `kills` counts those that have not been.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "libray/base/ids.h"

namespace ray::node {

struct Late {
  enum Kind { kConnect, kKill, kResolve, kClaim, kFind, kInfo, kFunction, kPong } kind = kPong;
  uint32_t process = 0;  // who asks, but for kKill and kClaim
  Id id;                 // actor or object
  bool may_restart = false;
  uint64_t req_id = 0, key = 0;
  std::string name, ns;
};

class LateWork {
 public:
  void add(Late work) {
    kills_ += work.kind == Late::kKill;
    waiting_.push_back(std::move(work));
  }
  bool empty() const { return waiting_.empty() && turn_.empty(); }
  uint32_t kills() const { return kills_; }
  size_t size() const { return waiting_.size() + turn_.size(); }
  // A reading of all rings begins,
  void begin() {
    for (Late& work : std::exchange(waiting_, {})) turn_.push_back(std::move(work));
  }
  // and is over: what had been asked when it began. The caller says done() of each.
  std::vector<Late> take() { return std::exchange(turn_, {}); }
  void done(const Late& work) { kills_ -= work.kind == Late::kKill; }
  std::string check() const {
    uint32_t kills = 0;
    for (const auto* list : {&waiting_, &turn_})
      for (const Late& work : *list) kills += work.kind == Late::kKill;
    return kills == kills_ ? "" : "the count of late kills is wrong";
  }

 private:
  std::vector<Late> waiting_, turn_;
  uint32_t kills_ = 0;
};

}  // namespace ray::node
