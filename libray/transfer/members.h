// Who belongs to the cluster, in the order that the control store gives to joins and deaths: each one makes a *view*,
// numbered from 1, and every node sees the same views in the same order, though not at the same time. Pure.
//
// The home of an object is the node that first had a reference to it (it travels with each reference); when that one is
// dead, the one that rendezvous hashing chooses among those that were alive in the view of the death, and so on. Joins do
// not move homes, so a home only ever changes because it died, and all who have seen that agree on the next one.
#pragma once
#include <map>
#include <vector>

#include "libray/transfer/copy.h"

namespace ray::transfer {

class Members {
 public:
  // The next view; false: it is not the next one, and changed nothing. A node that joins is told all earlier ones.
  bool joined(uint64_t view, Place place);
  bool died(uint64_t view, Place place);
  uint64_t view() const { return view_; }
  uint64_t last_death() const { return last_death_; }  // the view of it
  bool alive(Place place) const;
  bool known(Place place) const { return lives_.count(place) > 0; }
  uint64_t joined_at(Place place) const;  // of one that is known
  std::vector<Place> living() const;
  // False: nobody is left to be it, or its first home is unknown here.
  bool home(const ObjectId& id, Place origin, Place* out) const;

 private:
  struct Life {
    uint64_t from, to;  // views
  };
  std::map<Place, Life> lives_;
  uint64_t view_ = 0, last_death_ = 0;
};

}  // namespace ray::transfer
