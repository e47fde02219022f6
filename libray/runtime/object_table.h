// ObjectTable: from an id to this process's entry of the object, for entries that others know.
//
// Called by the runtime with its mutex held; no thread of its own. Open addressing, linear probing,
// deletion by shifting back (no tombstones). A slot holds the hash, so that probing and growing read the
// table alone: a value with 10,000 references is one insertion and one removal for each of them.
// Invariants: at most 3/4 full; every entry is found from its home slot without a gap; the table keeps
// its size until it is 1/16 full, so that batches that come and go do not make it anew.
#pragma once
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "libray/runtime/object.h"

namespace ray {

class ObjectTable {
 public:
  Object* find(const ObjectId& id) const {
    if (slots_.empty()) return nullptr;
    return slots_[place(id, hash(id))].object;
  }
  // An entry of the same id is replaced.
  void set(Object* o) {
    if ((used_ + 1) * 4 > slots_.size() * 3) resize(slots_.empty() ? kMin : slots_.size() * 2);
    uint64_t h = hash(o->id);
    Slot& s = slots_[place(o->id, h)];
    if (!s.object) ++used_;
    s = {h, o};
  }
  // Nothing happens when its id has another entry now, or none.
  void erase(const Object* o) {
    if (slots_.empty()) return;
    size_t at = place(o->id, hash(o->id));
    if (slots_[at].object != o) return;
    close_gap(at);
    --used_;
    if (slots_.size() > kMin && used_ * 16 < slots_.size()) resize(slots_.size() / 4);
  }
  size_t size() const { return used_; }
  size_t capacity() const { return slots_.size(); }
  template <typename F>
  void for_each(F&& f) const {  // f must not change the table
    for (const Slot& s : slots_)
      if (s.object) f(s.object);
  }

 private:
  struct Slot {
    uint64_t hash = 0;
    Object* object = nullptr;
  };
  static constexpr size_t kMin = 64;

  // Siblings differ in the last eight bytes alone.
  static uint64_t hash(const ObjectId& id) {
    uint64_t w[3];
    static_assert(sizeof w == sizeof id);
    std::memcpy(w, &id, sizeof w);
    uint64_t x = (w[0] ^ std::rotl(w[1], 32)) + w[2] * 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
  }
  // The slot of the id, or the free one where it belongs.
  size_t place(const ObjectId& id, uint64_t h) const {
    size_t mask = slots_.size() - 1, at = h & mask;
    while (slots_[at].object && (slots_[at].hash != h || slots_[at].object->id != id)) at = (at + 1) & mask;
    return at;
  }
  // Those behind that may lie further in front move up.
  void close_gap(size_t gap) {
    size_t mask = slots_.size() - 1;
    for (size_t at = (gap + 1) & mask; slots_[at].object; at = (at + 1) & mask) {
      size_t home = slots_[at].hash & mask;
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      slots_[gap] = slots_[at];
      gap = at;
    }
    slots_[gap] = {};
  }
  void resize(size_t n) {
    std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(n));
    size_t mask = n - 1;
    for (const Slot& s : old) {
      if (!s.object) continue;
      size_t at = s.hash & mask;
      while (slots_[at].object) at = (at + 1) & mask;
      slots_[at] = s;
    }
  }

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

}  // namespace ray
