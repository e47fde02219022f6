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
    e->idle_pass = passes_;
    if (e->owner == process) e->owner_counts = false;  // a later share counts again
    auto t = touched_.find(process);
    bool waits = std::find(e->waiters.begin(), e->waiters.end(), process) != e->waiters.end();
    bool results = std::any_of(e->results.begin(), e->results.end(),
                               [&](const Result& r) { return r.counted && r.holder == process; });
    if (t != touched_.end() && e->owner != process && !waits && !results) {
      t->second.erase(id);
      if (t->second.empty()) touched_.erase(t);
    }
  } else {
    note(process, id);
    if (watch_counts_ && it->second < 0) below_[id] = passes_;
  }
  consider(id, e);
}

void Directory::hold(const ObjectId& id, uint32_t process, int64_t count) {
  if (count == 0) return;
  add_count(id, &entry(id), process, count);
}

void Directory::set_value(const ObjectId& id, Entry* e, uint32_t state, int32_t code,
                          const Location& location, const ObjectId* contained, size_t n,
                          uint32_t from, Actions* out) {
  if (location.size > 0) {
    Action a{Action::kKeep};
    a.id = id;
    a.location = location;
    out->push_back(a);
  }
  Value value{location, state, code};
  if (e->owner != kNobody && from != kNobody && e->owner != from) {
    // Of an owner that another one has followed: only whoever has it by its place still reads it.
    if (location.size > 0) e->older.push_back(value);
  } else if (state != kObjPending) {  // else: the first part of a long list
    if (e->location.size > 0) e->older.push_back(*e);
    static_cast<Value&>(*e) = value;
    tell_waiters(id, e, out);
  }
  contain(&e->contained, contained, n);
}

void Directory::contain(std::vector<ObjectId>* list, const ObjectId* ids, size_t n) {
  list->insert(list->end(), ids, ids + n);
  for (size_t i = 0; i < n; ++i) {
    Entry& held = entry(ids[i]);  // entries do not move when others come
    ++held.containers;
    consider(ids[i], &held);
  }
}

void Directory::let_go(const std::vector<ObjectId>& ids) {
  for (const ObjectId& c : ids) {
    auto in = entries_.find(c);
    if (in == entries_.end()) continue;
    if (in->second.containers > 0 && --in->second.containers == 0) in->second.idle_pass = passes_;
    consider(c, &in->second);
  }
}

void Directory::result(const ObjectId& id, uint32_t holder, bool alive, uint32_t attempt,
                       const ObjectId* contained, size_t n_contained) {
  Entry& e = entry(id);
  auto same = std::find_if(e.results.begin(), e.results.end(), [&](const Result& r) {
    return r.holder == holder && r.attempt == attempt && r.counted == alive;
  });
  if (same == e.results.end()) {
    e.results.push_back({holder, attempt, alive, {}});
    same = std::prev(e.results.end());
    if (alive) add_count(id, &e, holder, 1);
    else consider(id, &e);
  }
  contain(&same->contained, contained, n_contained);
}

void Directory::apply(const Discard& d) {
  auto it = entries_.find(d.id);
  if (it == entries_.end()) return;
  Entry& e = it->second;
  auto r = std::find_if(e.results.begin(), e.results.end(), [&](const Result& x) {
    return x.holder == d.holder && x.attempt == d.attempt;
  });
  if (r == e.results.end()) return;
  Result gone = std::move(*r);
  e.results.erase(r);
  if (gone.counted) add_count(d.id, &e, d.holder, -1);
  let_go(gone.contained);
}

void Directory::share(uint32_t owner, const ObjectId& id, uint32_t state, int32_t code,
                      const Location& location, const ObjectId* contained, size_t n_contained,
                      Actions* out) {
  Entry& e = entry(id);
  bool again = id.object_index() == kActorIndex && e.shared && e.owner == owner && e.owner_counts;
  // It is made again, by somebody who may make another value of it.
  if (e.state != kObjPending) {
    if (e.location.size > 0) e.older.push_back(e);
    static_cast<Value&>(e) = Value{};
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
  set_value(id, &e, state, code, location, contained, n_contained, owner, out);
}

void Directory::ready(const ObjectId& id, uint32_t state, int32_t code, const Location& location,
                      const ObjectId* contained, size_t n_contained, Actions* out, uint32_t from) {
  Entry& e = entry(id);
  e.shared = true;
  consider(id, &e);
  set_value(id, &e, state, code, location, contained, n_contained, from, out);
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
    if (e.counts.erase(process) > 0) e.idle_pass = passes_;
    e.waiters.erase(std::remove(e.waiters.begin(), e.waiters.end(), process), e.waiters.end());
    if (e.owner == process) {
      e.owner = kNobody;
      e.owner_counts = false;
      if (e.state == kObjPending && e.shared && id.object_index() != kActorIndex) lose(id, &e, out);
    }
    for (Result& r : e.results)
      if (r.holder == process) r.counted = false;
    consider(id, &e);
  }
}

// Nobody makes it any more: what an earlier owner made is all that there will be, or it is lost.
void Directory::lose(const ObjectId& id, Entry* e, Actions* out) {
  if (!e->older.empty()) {
    static_cast<Value&>(*e) = e->older.back();
    e->older.pop_back();
  } else {
    e->state = kObjLost;
    e->code = RAY_OBJECT_LOST;
  }
  tell_waiters(id, e, out);
}

void Directory::begin_pass() {
  ++passes_;
  pass_.insert(pass_.end(), fresh_.begin(), fresh_.end());
  fresh_.clear();
  discards_pass_.insert(discards_pass_.end(), discards_fresh_.begin(), discards_fresh_.end());
  discards_fresh_.clear();
}

void Directory::end_pass(Actions* out) {
  std::vector<Discard> discards = std::move(discards_pass_);
  discards_pass_.clear();
  for (const Discard& d : discards) apply(d);
  std::vector<ObjectId> candidates = std::move(pass_);
  pass_.clear();
  for (const ObjectId& id : candidates) {
    auto it = entries_.find(id);
    if (it == entries_.end()) continue;
    Entry& e = it->second;
    e.candidate = false;
    if (!e.shared && e.state == kObjPending && id.object_index() != kActorIndex &&
        !e.waiters.empty())
      lose(id, &e, out);  // a whole pass brought no owner: it was freed long ago, or never was
    if (!unused(e)) continue;
    if (e.idle_pass == passes_) {  // it was used again in this pass, and by others, maybe, in rings that were read before
      e.candidate = true;
      fresh_.push_back(id);
      continue;
    }
    if (e.state == kObjPending && !e.waiters.empty()) lose(id, &e, out);
    erase(id, &e, out);
  }
  // A release may be read before the hold that it ends, but not a whole pass before it.
  for (auto it = below_.begin(); it != below_.end();) {
    auto e = entries_.find(it->first);
    const bool still = e != entries_.end() && std::any_of(e->second.counts.begin(), e->second.counts.end(),
                                                          [](const auto& c) { return c.second < 0; });
    if (still && it->second < passes_) broken_ = it->first.hex() + " was released more often than held";
    it = still ? std::next(it) : below_.erase(it);
  }
}

void Directory::erase(const ObjectId& id, Entry* e, Actions* out) {
  auto free = [&](const Value& v) {
    if (v.location.size == 0) return;
    Action a{Action::kFree};
    a.id = id;
    a.location = v.location;
    out->push_back(a);
  };
  free(*e);
  for (const Value& v : e->older) free(v);
  if (id.object_index() == kActorIndex && e->shared) {
    Action a{Action::kActorUnreferenced};
    a.id = id;
    out->push_back(a);
  }
  auto forget = [&](uint32_t process) {
    auto t = touched_.find(process);
    if (t == touched_.end()) return;
    t->second.erase(id);
    if (t->second.empty()) touched_.erase(t);
  };
  forget(e->owner);
  std::vector<ObjectId> inner = std::move(e->contained);
  for (const Result& r : e->results) {
    forget(r.holder);
    inner.insert(inner.end(), r.contained.begin(), r.contained.end());
  }
  entries_.erase(id);
  let_go(inner);
}

int64_t Directory::holders(const ObjectId& id) const {
  auto it = entries_.find(id);
  if (it == entries_.end()) return 0;
  int64_t sum = it->second.containers;
  for (const auto& [process, count] : it->second.counts) sum += count;
  return sum;
}

std::vector<std::string> Directory::describe(size_t most) const {
  static const char* const states[] = {"pending", "ready", "error", "lost"};
  std::vector<std::string> lines;
  for (const auto& [id, e] : entries_) {
    if (lines.size() == most) break;
    std::string line = id.hex() + " " + (e.state < 4 ? states[e.state] : "?") + (e.shared ? "" : " placeholder");
    if (e.owner != kNobody) line += " owner " + std::to_string(e.owner);
    for (const auto& [process, count] : e.counts) line += " held " + std::to_string(process) + ":" + std::to_string(count);
    if (e.containers) line += " in " + std::to_string(e.containers);
    for (const ObjectId& c : e.contained) line += " has " + c.hex();
    for (const Result& r : e.results) {
      line += " result of " + std::to_string(r.holder) + (r.counted ? "" : " (not counted)");
      for (const ObjectId& c : r.contained) line += " has " + c.hex();
    }
    if (!e.waiters.empty()) line += " waited for by " + std::to_string(e.waiters.size());
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string Directory::check() const {
  if (!broken_.empty()) return broken_;
  std::unordered_map<ObjectId, uint32_t> containers;
  for (const auto& [id, e] : entries_) {
    for (const ObjectId& c : e.contained) ++containers[c];
    for (const Result& r : e.results)
      for (const ObjectId& c : r.contained) ++containers[c];
  }
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
