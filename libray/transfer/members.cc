// See members.h.
#include "libray/transfer/members.h"

namespace ray::transfer {

bool Members::joined(uint64_t view, Place place) {
  if (view != view_ + 1 || lives_.count(place)) return false;
  view_ = view;
  lives_[place] = {view, UINT64_MAX};
  return true;
}

bool Members::died(uint64_t view, Place place) {
  if (view != view_ + 1 || !alive(place)) return false;
  view_ = last_death_ = view;
  lives_[place].to = view;
  return true;
}

bool Members::alive(Place place) const {
  auto it = lives_.find(place);
  return it != lives_.end() && it->second.to == UINT64_MAX;
}

uint64_t Members::joined_at(Place place) const {
  auto it = lives_.find(place);
  return it == lives_.end() ? 0 : it->second.from;
}

std::vector<Place> Members::living() const {
  std::vector<Place> all;
  for (auto& [place, life] : lives_)
    if (life.to == UINT64_MAX) all.push_back(place);
  return all;
}

bool Members::home(const ObjectId& id, Place origin, Place* out) const {
  auto it = lives_.find(origin);
  if (it == lives_.end()) return false;
  while (it->second.to != UINT64_MAX) {
    const uint64_t death = it->second.to;
    auto best = lives_.end();
    uint64_t best_weight = 0;
    for (auto other = lives_.begin(); other != lives_.end(); ++other) {
      if (other->second.from > death || other->second.to <= death) continue;
      const uint64_t weight = hash_id(id, uint64_t{other->first.node} << 32 | other->first.epoch);
      if (best != lives_.end() && weight <= best_weight) continue;
      best = other;
      best_weight = weight;
    }
    if (best == lives_.end()) return false;
    it = best;
  }
  *out = it->first;
  return true;
}

}  // namespace ray::transfer
