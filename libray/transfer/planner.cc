// Requests, room, and what the store says. See planner.h; pulls.cc has the chunks.
#include "libray/transfer/planner.h"

#include <algorithm>

namespace ray::transfer {

namespace {

PullAction action(PullAction::Kind kind, const Copy& copy, uint64_t request = 0) {
  PullAction a{};
  a.kind = kind;
  a.copy = copy;
  a.request = request;
  return a;
}

// Requests that are passed by when they do not fit: a bound on what one event costs.
constexpr int kLookAhead = 64;

}  // namespace

Planner::Planner(Place self, uint64_t room, uint64_t most, const PullOptions& options)
    : self_(self), options_(options), room_(room), most_(std::max(room, most)) {}

Planner::Pull* Planner::find(const Copy& copy) {
  auto it = pulls_.find(copy);
  return it == pulls_.end() ? nullptr : &it->second;
}

Planner::Pull* Planner::moving(const Copy& copy) {
  Pull* p = find(copy);
  return p && p->state == State::kMoving ? p : nullptr;
}

// ---- whoever needs objects

void Planner::request(const Request& r, int64_t now, PullActions* out) {
  if (wishes_.count(r.number)) return;
  Wish& w = wishes_[r.number];
  w.what.number = r.number;
  w.what.rank = r.rank;
  w.since = now;
  w.key = now + static_cast<int64_t>(r.rank) * options_.age_ns;
  for (const Want& want : r.wants) {
    Pull& p = pulls_[want.copy];
    p.copy = want.copy;
    for (Place place : want.places)
      if (Source* s = know(&p, place)) s->complete = true;
    if (want.size != kUnknownSize && size_is_fine(want.size, options_.chunk)) learn(&p, want.size, out);
    if (p.requests.insert(r.number).second) w.what.wants.push_back({want.copy, want.size, {}});
  }
  queue_.insert({w.key, r.number});
  settle(now, out);
}

void Planner::raise(uint64_t request, Rank rank, int64_t now, PullActions* out) {
  auto it = wishes_.find(request);
  if (it == wishes_.end() || it->second.what.rank <= rank) return;
  Wish& w = it->second;
  const bool queued = queue_.erase({w.key, request}) > 0;
  w.what.rank = rank;
  w.key = w.since + static_cast<int64_t>(rank) * options_.age_ns;
  if (queued) queue_.insert({w.key, request});
  if (w.admitted)
    for (const Want& want : w.what.wants) find(want.copy)->rank = std::min(find(want.copy)->rank, rank);
  settle(now, out);
}

void Planner::release(uint64_t request, int64_t now, PullActions* out) {
  if (!wishes_.count(request)) return;
  end(request, out);
  settle(now, out);
}

// The request is over, whatever it had.
void Planner::end(uint64_t request, PullActions* out) {
  auto it = wishes_.find(request);
  Wish& w = it->second;
  queue_.erase({w.key, request});
  for (const Want& want : w.what.wants) {
    Pull* p = find(want.copy);
    p->requests.erase(request);
    if (w.admitted) leave(p, out);
    if (p->requests.empty()) pulls_.erase(want.copy);
  }
  wishes_.erase(it);
}

// ---- room

// At the end of every event: what may go on goes on.
void Planner::settle(int64_t now, PullActions* out) {
  admit_all(now, out);
  pump(now, out);
}

void Planner::admit_all(int64_t now, PullActions* out) {
  int passed = 0;
  for (auto it = queue_.begin(); it != queue_.end() && passed < kLookAhead;) {
    const uint64_t number = it->second;
    Wish& w = wishes_[number];
    uint64_t more = 0, all = 0;
    for (const Want& want : w.what.wants) {
      const Pull& p = *find(want.copy);
      all += cost(p);
      if (p.users == 0) more += cost(p);
    }
    ++it;  // what follows may take this one out of the queue
    if (all > most_) {
      out->push_back(action(PullAction::kTooLarge, {}, number));
      end(number, out);
    } else if (used_ + more <= room_) {
      admit(&w, now, out);
    } else if (now - w.since >= options_.patience_ns) {
      return;  // nobody passes it any more
    } else {
      ++passed;
    }
  }
}

void Planner::admit(Wish* w, int64_t now, PullActions* out) {
  queue_.erase({w->key, w->what.number});
  w->admitted = true;
  w->absent = 0;
  for (const Want& want : w->what.wants) {
    Pull* p = find(want.copy);
    if (p->users++ == 0) {
      p->reserved = cost(*p);
      used_ += p->reserved;
      p->state = State::kPinning;
      p->rank = w->what.rank;
      out->push_back(action(PullAction::kPin, p->copy));
    }
    p->rank = std::min(p->rank, w->what.rank);
    if (p->state != State::kHere) ++w->absent;
  }
  tick_at_ = std::max(tick_at_, now + options_.retry_ns);
  if (w->absent > 0) return;
  w->ready = true;
  out->push_back(action(PullAction::kReady, {}, w->what.number));
}

// Back into the queue, at its old place.
void Planner::withdraw(Wish* w, PullActions* out) {
  w->admitted = w->ready = false;
  for (const Want& want : w->what.wants) leave(find(want.copy), out);
  queue_.insert({w->key, w->what.number});
}

void Planner::withdraw_users(Pull* p, PullActions* out) {
  const std::set<uint64_t> requests = p->requests;
  for (uint64_t number : requests)
    if (wishes_[number].admitted) withdraw(&wishes_[number], out);
}

void Planner::room(uint64_t bytes, uint64_t most, int64_t now, PullActions* out) {
  room_ = bytes;
  most_ = std::max(bytes, most);
  shrink(out);
  settle(now, out);
}

// The last ones go first. What is ready stays: somebody uses it.
void Planner::shrink(PullActions* out) {
  if (used_ <= room_) return;
  std::vector<std::pair<int64_t, uint64_t>> back;
  for (auto& [number, w] : wishes_)
    if (w.admitted && !w.ready) back.push_back({w.key, number});
  std::sort(back.rbegin(), back.rend());
  for (auto& [key, number] : back)
    if (used_ > room_) withdraw(&wishes_[number], out);
}

// A request that was admitted does not need it any more.
void Planner::leave(Pull* p, PullActions* out) {
  if (--p->users > 0) return;
  used_ -= p->reserved;
  p->reserved = 0;
  if (p->state == State::kHere) out->push_back(action(PullAction::kUnpin, p->copy));
  if (p->state == State::kMoving) stop_moving(p, Why::kNone, out);
  p->state = State::kQueued;
}

void Planner::arrived(Pull* p, PullActions* out) {
  p->state = State::kHere;
  for (uint64_t number : p->requests) {
    Wish& w = wishes_[number];
    if (!w.admitted || --w.absent > 0) continue;
    w.ready = true;
    out->push_back(action(PullAction::kReady, {}, number));
  }
}

void Planner::lose(Pull* p, PullActions* out) {
  const std::set<uint64_t> requests = p->requests;
  const Copy copy = p->copy;
  for (uint64_t number : requests) {
    out->push_back(action(PullAction::kLost, copy, number));
    end(number, out);
  }
}

// False: this cannot be its size, or it does not fit: those who want it wait again.
bool Planner::learn(Pull* p, uint64_t size, PullActions* out) {
  if (p->size != kUnknownSize) return p->size == size;
  p->size = size;
  const bool first_asked = p->asked.test(0);  // the question may still be under way
  p->missing = chunks_of(size, options_.chunk);
  p->have = p->asked = Bits(p->missing);
  if (first_asked) p->asked.set(0);
  if (p->users == 0) return true;
  if (size > p->reserved && used_ + (size - p->reserved) > room_) {
    withdraw_users(p, out);
    return false;
  }
  used_ = used_ - p->reserved + size;
  p->reserved = size;
  if (p->state == State::kMoving) create(p, out);
  put_hungry(p);
  return true;
}

// ---- the store

void Planner::pinned(const Copy& copy, uint64_t size, int64_t now, PullActions* out) {
  Pull* p = find(copy);
  // An answer to a question that does not count any more: nobody needs the pin.
  if (!p || p->users == 0 || p->state == State::kHere) return out->push_back(action(PullAction::kUnpin, copy));
  if (p->state == State::kMoving) stop_moving(p, Why::kNone, out);
  p->state = State::kPinning;
  if (!learn(p, size, out) && p->users == 0) {
    out->push_back(action(PullAction::kUnpin, copy));
  } else {
    arrived(p, out);
  }
  settle(now, out);
}

void Planner::absent(const Copy& copy, int64_t now, PullActions* out) {
  Pull* p = find(copy);
  if (!p || p->state != State::kPinning) return;
  start_moving(p, now, out);
  settle(now, out);
}

void Planner::failed(const Copy& copy, int64_t now, PullActions* out) {
  Pull* p = moving(copy);
  if (!p) return;
  withdraw_users(p, out);
  tick_at_ = std::max(tick_at_, now + options_.retry_ns);
}

}  // namespace ray::transfer
