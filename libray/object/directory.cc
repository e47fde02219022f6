// See directory.h.
#include "libray/object/directory.h"

#include <algorithm>

namespace ray::object {

using wire::kObjLost;
using wire::kObjPending;

Action Directory::told(const ObjectId& id, const Entry& e, uint32_t process) {
  Action a{Action::kTell};
  a.id = id;
  a.location = e.location;
  a.process = process;
  a.state = e.state;
  a.code = e.code;
  return a;
}

void Directory::tell_waiters(const ObjectId& id, Entry* e, Actions* out) {
  for (uint32_t process : e->waiters) out->push_back(told(id, *e, process));
  e->waiters.clear();
}

// Every entry that lost its last use becomes a candidate once; so does a placeholder with waiters,
// whose owner may be gone: the pass decides.
void Directory::consider(const ObjectId& id, Entry* e) {
  if (e->candidate || !(unused(*e) || !e->shared)) return;
  e->candidate = true;
  fresh_.push_back(id);
}

void Directory::add_count(const ObjectId& id, Entry* e, uint32_t process, int64_t count) {
  auto it = e->counts.emplace(process, 0).first;
  it->second += count;
  if (it->second == 0) {
    e->counts.erase(it);
    if (e->owner == process) e->owner_counts = false;  // a later share counts again
    auto t = touched_.find(process);
    bool waits = std::find(e->waiters.begin(), e->waiters.end(), process) != e->waiters.end();
    if (t != touched_.end() && e->owner != process && !waits) {
      t->second.erase(id);
      if (t->second.empty()) touched_.erase(t);
    }
  } else {
    note(process, id);
  }
  consider(id, e);
}

void Directory::hold(const ObjectId& id, uint32_t process, int64_t count) {
  if (count == 0) return;
  add_count(id, &entry(id), process, count);
}

void Directory::set_value(const ObjectId& id, Entry* e, uint32_t state, int32_t code,
                          const Location& location, const ObjectId* contained, size_t n,
                          Actions* out) {
  if (e->state != kObjPending && e->state != kObjLost) return;  // the first value wins
  std::vector<ObjectId> inner(contained, contained + n);
  e->contained.insert(e->contained.end(), inner.begin(), inner.end());
  if (state != kObjPending) {  // else: the first part of a long list
    e->state = state;
    e->code = code;
    e->location = location;
    tell_waiters(id, e, out);
  }
  // Last: it may move entries.
  for (const ObjectId& c : inner) {
    Entry& held = entry(c);
    ++held.containers;
    consider(c, &held);
  }
}

void Directory::share(uint32_t owner, const ObjectId& id, uint32_t state, int32_t code,
                      const Location& location, const ObjectId* contained, size_t n_contained,
                      Actions* out) {
  Entry& e = entry(id);
  bool again = e.shared && e.owner == owner && e.owner_counts;
  // A retried parent makes the same objects again: the value may come once more from its new owner.
  if (e.state == kObjLost) {
    e.state = kObjPending;
    e.code = 0;
  }
  e.shared = true;
  e.owner = owner;
  note(owner, id);
  if (!again) {
    e.owner_counts = true;
    add_count(id, &e, owner, 1);
  }
  consider(id, &e);
  tell_owner(id, &e, out);
  set_value(id, &e, state, code, location, contained, n_contained, out);
}

void Directory::ready(const ObjectId& id, uint32_t state, int32_t code, const Location& location,
                      const ObjectId* contained, size_t n_contained, Actions* out) {
  Entry& e = entry(id);
  e.shared = true;
  consider(id, &e);
  set_value(id, &e, state, code, location, contained, n_contained, out);
}

void Directory::resolve(const ObjectId& id, uint32_t process, Actions* out) {
  Entry& e = entry(id);
  if (e.state != kObjPending) {
    out->push_back(told(id, e, process));
    return;
  }
  if (std::find(e.waiters.begin(), e.waiters.end(), process) == e.waiters.end())
    e.waiters.push_back(process);
  note(process, id);
  consider(id, &e);
}

void Directory::tell_owner(const ObjectId& id, Entry* e, Actions* out) {
  if (!e->cancelled || !e->shared || e->owner == kNobody || e->state != kObjPending) return;
  Action a{Action::kCancel};
  a.id = id;
  a.process = e->owner;
  a.flags = e->cancel_flags;
  e->cancelled = false;
  out->push_back(a);
}

void Directory::cancel(const ObjectId& id, uint32_t flags, Actions* out) {
  Entry& e = entry(id);
  if (e.state == kObjPending) {
    e.cancelled = true;
    e.cancel_flags = static_cast<uint8_t>(flags);
    tell_owner(id, &e, out);
  }
  consider(id, &e);
}

void Directory::process_died(uint32_t process, Actions* out) {
  auto t = touched_.find(process);
  if (t == touched_.end()) return;
  std::set<ObjectId> ids = std::move(t->second);
  touched_.erase(t);
  for (const ObjectId& id : ids) {
    auto it = entries_.find(id);
    if (it == entries_.end()) continue;
    Entry& e = it->second;
    e.counts.erase(process);
    e.waiters.erase(std::remove(e.waiters.begin(), e.waiters.end(), process), e.waiters.end());
    if (e.owner == process) {
      e.owner = kNobody;
      e.owner_counts = false;
      if (e.state == kObjPending && e.shared && id.object_index() != kActorIndex) {
        e.state = kObjLost;
        e.code = RAY_OBJECT_LOST;
        tell_waiters(id, &e, out);
      }
    }
    consider(id, &e);
  }
}

void Directory::begin_pass() {
  pass_.insert(pass_.end(), fresh_.begin(), fresh_.end());
  fresh_.clear();
}

void Directory::end_pass(Actions* out) {
  std::vector<ObjectId> candidates = std::move(pass_);
  pass_.clear();
  for (const ObjectId& id : candidates) {
    auto it = entries_.find(id);
    if (it == entries_.end()) continue;
    Entry& e = it->second;
    e.candidate = false;
    if (!e.shared && e.state == kObjPending && id.object_index() != kActorIndex &&
        !e.waiters.empty()) {
      // A whole pass brought no owner: the object was freed long ago, or never was.
      e.state = kObjLost;
      e.code = RAY_OBJECT_LOST;
      tell_waiters(id, &e, out);
    }
    if (!unused(e)) continue;
    if (e.state == kObjPending && !e.waiters.empty()) {
      e.state = kObjLost;
      e.code = RAY_OBJECT_LOST;
      tell_waiters(id, &e, out);
    }
    if (id.object_index() == kActorIndex) {
      if (e.shared) {
        Action a{Action::kActorUnreferenced};
        a.id = id;
        out->push_back(a);
      }
    } else if (e.location.size > 0) {
      Action a{Action::kFree};
      a.id = id;
      a.location = e.location;
      out->push_back(a);
    }
    if (auto t = touched_.find(e.owner); t != touched_.end()) {
      t->second.erase(id);
      if (t->second.empty()) touched_.erase(t);
    }
    std::vector<ObjectId> inner = std::move(e.contained);
    entries_.erase(it);
    for (const ObjectId& c : inner) {
      auto in = entries_.find(c);
      if (in == entries_.end()) continue;
      if (in->second.containers > 0) --in->second.containers;
      consider(c, &in->second);
    }
  }
}

int64_t Directory::holders(const ObjectId& id) const {
  auto it = entries_.find(id);
  if (it == entries_.end()) return 0;
  int64_t sum = it->second.containers;
  for (const auto& [process, count] : it->second.counts) sum += count;
  return sum;
}

std::string Directory::check() const {
  std::unordered_map<ObjectId, uint32_t> containers;
  for (const auto& [id, e] : entries_)
    for (const ObjectId& c : e.contained) ++containers[c];
  for (const auto& [id, e] : entries_) {
    if (containers[id] != e.containers) return "containers of " + id.hex() + " do not add up";
    for (const auto& [process, count] : e.counts) {
      auto t = touched_.find(process);
      if (count == 0 || t == touched_.end() || !t->second.count(id))
        return "holder of " + id.hex() + " is not indexed";
    }
    if (unused(e) && !e.candidate) return id.hex() + " is unused and not a candidate";
  }
  return "";
}

}  // namespace ray::object
