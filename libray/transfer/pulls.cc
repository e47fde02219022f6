// Sources and chunks of what moves. See planner.h.
#include <algorithm>

#include "libray/transfer/planner.h"

namespace ray::transfer {

namespace {

constexpr size_t kMaxSources = 64;     // of one copy, that were heard of from other receivers
constexpr size_t kCandidates = 32;     // among so many chunks the rarest is chosen
constexpr uint8_t kEnoughRefusals = 2;

PullAction action(PullAction::Kind kind, const Copy& copy) {
  PullAction a{};
  a.kind = kind;
  a.copy = copy;
  return a;
}

}  // namespace

void Planner::say(Place place, uint32_t channel, Message m, PullActions* out) const {
  PullAction a = action(PullAction::kSend, m.copy);
  a.place = place;
  a.channel = channel;
  a.message = std::move(m);
  out->push_back(std::move(a));
}

uint64_t Planner::asked(Place place, uint32_t channel) const {
  auto it = lines_.find(place);
  if (it == lines_.end()) return 0;
  auto line = it->second.find(channel);
  return line == it->second.end() ? 0 : line->second.flying;
}

// ---- what moves

void Planner::create(Pull* p, PullActions* out) {
  PullAction a = action(PullAction::kCreate, p->copy);
  a.size = p->size;
  out->push_back(a);
  p->created = true;
}

void Planner::start_moving(Pull* p, int64_t now, PullActions* out) {
  p->state = State::kMoving;
  ++moving_;
  p->missing = p->size == kUnknownSize ? 1 : chunks_of(p->size, options_.chunk);
  p->have = p->asked = Bits(p->missing);
  p->n_asked = 0;
  p->nudge_at = now + options_.silent_ns / 2;
  p->served = 0;
  if (p->size != kUnknownSize) create(p, out);
  put_hungry(p);
  judge(p, now, out);
}

// All is here, or nobody wants it. Chunks under way are for nobody; what sources said does not hold for the next time.
void Planner::stop_moving(Pull* p, Why why, PullActions* out) {
  if (p->created) out->push_back(action(PullAction::kAbandon, p->copy));
  p->created = p->locating = false;
  --moving_;
  p->state = State::kQueued;
  leave_hungry(p);
  for (auto it = p->sources.begin(); it != p->sources.end();) {
    auto& [place, s] = *it;
    auto lines = lines_.find(place);
    if (lines != lines_.end()) {
      for (auto& [channel, line] : lines->second)
        for (auto ask = line.asks.lower_bound({p->copy, 0}); ask != line.asks.end() && ask->first.first == p->copy;) {
          line.flying -= ask->second.bytes;
          ask = line.asks.erase(ask);
        }
      if (s.met && !lines->second.empty()) {
        Message m;
        m.kind = Kind::kStop;
        m.why = why;
        m.copy = p->copy;
        say(place, lines->second.begin()->first, m, out);
      }
    }
    const bool keep = s.complete;
    s = Source{};
    s.complete = keep;
    it = keep ? std::next(it) : p->sources.erase(it);
  }
}

// The least served goes first; whoever comes starts where the others are.
void Planner::put_hungry(Pull* p) {
  leave_hungry(p);
  if (p->state != State::kMoving || p->missing <= p->n_asked) return;
  p->served = std::max(p->served, clock_);
  if (p->order == 0) p->order = ++orders_;
  p->hungry = true;
  hungry_[{p->served, p->order}] = p->copy;
}

void Planner::leave_hungry(Pull* p) {
  if (p->hungry) hungry_.erase({p->served, p->order});
  p->hungry = false;
}

// ---- sources

Planner::Source* Planner::know(Pull* p, Place place) {
  return place == self_ || dead_.count(place) ? nullptr : &p->sources[place];
}

// Asks who may have parts of it which ones, and to be told of more.
void Planner::meet(Pull* p, Place place, Source* s, PullActions* out) {
  auto lines = lines_.find(place);
  if (p->state != State::kMoving || lines == lines_.end() || lines->second.empty()) return;
  s->met = true;
  Message m;
  m.copy = p->copy;
  m.size = p->size;
  say(place, lines->second.begin()->first, m, out);
}

void Planner::meet_peers(Pull* p, const std::vector<Place>& places, PullActions* out) {
  for (Place place : places) {
    if (!p->sources.count(place) && p->sources.size() >= kMaxSources) return;
    Source* s = know(p, place);
    if (s && !s->met && !s->complete) meet(p, place, s, out);
  }
}

// It has no such copy. That it has one may have been said before it went or after: so it is asked a second time when
// its home still names it, see located().
void Planner::refuse(Pull* p, Place place, PullActions* out) {
  Source& s = p->sources[place];
  if (s.complete) {
    PullAction a = action(PullAction::kRefused, p->copy);
    a.place = place;
    out->push_back(a);
  }
  s.met = s.met && s.complete;  // a receiver that did not know of it yet is asked again when it is named again
  s.complete = false;
  s.told = true;
  s.have = Bits();
  s.refusals = static_cast<uint8_t>(std::min(s.refusals + 1, 255));
}

// Whether those that are known may bring all that is missing.
bool Planner::enough(const Pull& p) const {
  for (auto& [place, s] : p.sources)
    if (s.complete || (s.met && !s.told)) return true;
  for (size_t i = 0; i < p.have.words(); ++i) {
    uint64_t there = p.have.word(i) | p.asked.word(i);
    for (auto& [place, s] : p.sources) there |= s.have.word(i);
    Bits all(p.have.size());
    all.set_word(i, ~uint64_t{0});
    if (all.word(i) & ~there) return false;
  }
  return true;
}

void Planner::judge(Pull* p, int64_t now, PullActions* out) {
  if (p->state == State::kMoving && !p->locating && !enough(*p)) locate(p, now, out);
}

void Planner::locate(Pull* p, int64_t now, PullActions* out) {
  p->locating = true;
  p->locate_at = now + options_.silent_ns;
  PullAction a = action(PullAction::kLocate, p->copy);
  a.round = ++p->round;
  out->push_back(a);
}

void Planner::located(const Copy& copy, uint64_t round, uint64_t size, const std::vector<Place>& places, int64_t now,
                      PullActions* out) {
  Pull* p = moving(copy);
  if (!p || !p->locating || round != p->round) return;
  p->locating = false;
  for (Place place : places) {
    Source* s = know(p, place);
    if (s && s->refusals < kEnoughRefusals) s->complete = true;
  }
  if (size == kUnknownSize || !size_is_fine(size, options_.chunk) || p->size != kUnknownSize || learn(p, size, out))
    if (!enough(*p)) lose(p, out);
  settle(now, out);
}

void Planner::location(const Copy& copy, uint64_t size, Place place, int64_t now, PullActions* out) {
  Pull* p = find(copy);
  Source* s = p ? know(p, place) : nullptr;
  if (!s) return;
  s->complete = true;
  s->refusals = 0;
  if (size != kUnknownSize && size_is_fine(size, options_.chunk)) learn(p, size, out);
  settle(now, out);
}

void Planner::location_gone(const Copy& copy, Place place, int64_t now, PullActions* out) {
  Pull* p = find(copy);
  if (!p || !p->sources.count(place)) return;
  p->sources[place].complete = false;
  judge(p, now, out);
  settle(now, out);
}

// ---- connections

void Planner::up(Place place, uint32_t channel, int64_t now, PullActions* out) {
  if (dead_.count(place)) return;
  Line& line = lines_[place][channel];
  withdraw_asks(&line);
  line = Line{};
  line.heard = now;
  for (auto& [copy, p] : pulls_) {
    auto s = p.sources.find(place);
    if (s != p.sources.end() && !s->second.complete) meet(&p, place, &s->second, out);
  }
  settle(now, out);
}

void Planner::down(Place place, uint32_t channel, int64_t now, PullActions* out) {
  auto lines = lines_.find(place);
  if (lines == lines_.end() || !lines->second.count(channel)) return;
  withdraw_asks(&lines->second[channel]);
  lines->second.erase(channel);
  if (lines->second.empty()) {
    lines_.erase(lines);
    for (auto& [copy, p] : pulls_) {
      auto s = p.sources.find(place);
      if (s == p.sources.end()) continue;
      s->second.met = s->second.told = false;
      s->second.have = Bits();
      judge(&p, now, out);
    }
  }
  settle(now, out);
}

void Planner::died(Place place, int64_t now, PullActions* out) {
  dead_.insert(place);
  auto lines = lines_.find(place);
  if (lines != lines_.end()) {
    for (auto& [channel, line] : lines->second) withdraw_asks(&line);
    lines_.erase(lines);
  }
  for (auto& [copy, p] : pulls_)
    if (p.sources.erase(place)) judge(&p, now, out);
  settle(now, out);
}

void Planner::forget_ask(Line* line, const Copy& copy, uint32_t chunk) {
  auto ask = line->asks.find({copy, chunk});
  if (ask == line->asks.end()) return;
  line->flying -= ask->second.bytes;
  line->asks.erase(ask);
  Pull* p = moving(copy);
  if (!p || !p->asked.test(chunk)) return;
  p->asked.clear(chunk);
  --p->n_asked;
  put_hungry(p);
}

void Planner::withdraw_asks(Line* line) {
  while (!line->asks.empty()) {
    const std::pair<Copy, uint32_t> ask = line->asks.begin()->first;
    forget_ask(line, ask.first, ask.second);
  }
}

// ---- messages

void Planner::message(Place from, uint32_t channel, const Message& m, int64_t now, PullActions* out) {
  auto lines = lines_.find(from);
  if (lines == lines_.end() || !lines->second.count(channel)) return;
  Line& line = lines->second[channel];
  line.heard = now;
  line.slow_until = line.slow_ns = 0;
  if (m.kind == Kind::kChunk || m.kind == Kind::kDeny) forget_ask(&line, m.copy, m.chunk);
  if (Pull* p = moving(m.copy)) {
    if (m.kind == Kind::kChunk) on_chunk(p, from, m, now, out);
    if (m.kind == Kind::kDeny) on_deny(p, from, m, now, out);
    if (m.kind == Kind::kHave) on_have(p, from, m, out);
    if (m.kind == Kind::kPeers) meet_peers(p, m.peers, out);
    auto s = p->sources.find(from);
    if (m.kind == Kind::kTurn && s != p->sources.end()) s->second.busy_until = 0;
  } else if (m.kind == Kind::kHave || m.kind == Kind::kTurn) {  // it does not know that this is over
    Message stop;
    stop.kind = Kind::kStop;
    stop.copy = m.copy;
    say(from, channel, stop, out);
  }
  settle(now, out);
}

void Planner::on_chunk(Pull* p, Place from, const Message& m, int64_t now, PullActions* out) {
  const bool fine = m.size != kUnknownSize && size_is_fine(m.size, options_.chunk) &&
                    m.chunk < chunks_of(m.size, options_.chunk) &&
                    m.bytes.size() == length_of(m.size, options_.chunk, m.chunk);
  if (!fine || (p->size != kUnknownSize && p->size != m.size)) {  // not what this copy is: it has another one
    if (p->sources.count(from)) refuse(p, from, out);
    return judge(p, now, out);
  }
  if (!learn(p, m.size, out) || p->have.test(m.chunk)) return;
  p->have.set(m.chunk);
  --p->missing;
  if (p->asked.test(m.chunk)) {  // of somebody else, when this one was silent
    p->asked.clear(m.chunk);
    --p->n_asked;
  }
  put_hungry(p);
  PullAction a = action(PullAction::kWrite, p->copy);
  a.size = p->size;
  a.chunk = m.chunk;
  a.message.bytes = m.bytes;
  out->push_back(a);
  if (p->missing > 0) return;
  out->push_back(action(PullAction::kSeal, p->copy));
  p->created = false;
  stop_moving(p, Why::kDone, out);
  arrived(p, out);
}

void Planner::on_deny(Pull* p, Place from, const Message& m, int64_t now, PullActions* out) {
  auto it = p->sources.find(from);
  if (it == p->sources.end()) return;
  Source& s = it->second;
  if (m.why == Why::kBusy) {
    s.told = true;
    s.busy_until = now + options_.retry_ns;
    meet_peers(p, m.peers, out);
  } else if (m.why == Why::kNotYet) {
    s.complete = false;
    s.have = Bits();
    if (!on_have(p, from, m, out)) return;
  } else if (m.why == Why::kLarge && size_is_fine(m.size, options_.chunk) &&
             (p->size == kUnknownSize || p->size == m.size)) {  // it may have been learnt meanwhile
    if (!learn(p, m.size, out)) return;
  } else {
    refuse(p, from, out);
  }
  judge(p, now, out);
}

// False: the pull has ended with that.
bool Planner::on_have(Pull* p, Place from, const Message& m, PullActions* out) {
  Source* s = know(p, from);
  if (!s) return true;
  s->told = true;
  if (m.size == kUnknownSize || !size_is_fine(m.size, options_.chunk)) return true;
  if (!learn(p, m.size, out)) return p->state == State::kMoving;
  if (m.have.size() != p->have.size()) return true;
  if (s->have.size() != m.have.size()) s->have = Bits(m.have.size());
  for (size_t i = 0; i < m.have.words(); ++i) s->have.set_word(i, s->have.word(i) | m.have.word(i));
  return true;
}

// ---- asking

// One chunk of each connection in turn, from the places behind this one on, so that not all nodes ask the same first.
void Planner::pump(int64_t now, PullActions* out) {
  std::vector<std::pair<Place, uint32_t>> order;
  if (hungry_.empty()) return;
  auto start = lines_.upper_bound(self_);
  for (auto it = start; it != lines_.end(); ++it)
    for (auto& [channel, line] : it->second) order.push_back({it->first, channel});
  for (auto it = lines_.begin(); it != start; ++it)
    for (auto& [channel, line] : it->second) order.push_back({it->first, channel});
  for (bool more = true; more && !hungry_.empty();) {
    more = false;
    for (auto& [place, channel] : order) more |= ask_one(place, channel, &lines_[place][channel], now, out);
  }
}

bool Planner::ask_one(Place place, uint32_t channel, Line* line, int64_t now, PullActions* out) {
  if (line->slow_until > now || line->flying >= options_.window) return false;
  for (auto& [key, copy] : hungry_) {
    Pull* p = find(copy);
    auto s = p->sources.find(place);
    if (s == p->sources.end() || s->second.busy_until > now) continue;
    const uint32_t chunk = choose(*p, s->second);
    if (chunk == kNoChunk) continue;
    const uint32_t bytes = p->size == kUnknownSize ? options_.inline_max : length_of(p->size, options_.chunk, chunk);
    if (line->flying > 0 && line->flying + bytes > options_.window) return false;  // it is this one's turn: nobody passes it
    line->flying += bytes;
    line->asks[{p->copy, chunk}] = {now, bytes};
    s->second.met = true;
    leave_hungry(p);
    p->asked.set(chunk);
    ++p->n_asked;
    clock_ = std::max(clock_, p->served);
    p->served += (uint64_t{bytes} + 1) << 2 * static_cast<int>(p->rank);
    put_hungry(p);
    Message m;
    m.copy = p->copy;
    m.size = p->size;
    m.chunk = chunk;
    say(place, channel, m, out);
    return true;
  }
  return false;
}

// Of the chunks that this source has, one that few have. Each receiver looks from another place on, so that two
// receivers of the same copy soon have different parts to give to each other.
uint32_t Planner::choose(const Pull& p, const Source& s) const {
  const size_t n = p.have.size(), words = p.have.words();
  const size_t start = hash_id(p.copy.id, (uint64_t{self_.node} << 32 | self_.epoch) + 1) % n;
  uint32_t best = kNoChunk;
  size_t best_count = SIZE_MAX, seen = 0;
  for (size_t k = 0; k <= words && seen < kCandidates; ++k) {
    const size_t i = (start / 64 + k) % words;
    uint64_t w = (s.complete ? ~uint64_t{0} : s.have.word(i)) & ~p.have.word(i) & ~p.asked.word(i);
    if (k == 0) w &= ~uint64_t{0} << start % 64;
    if (k == words) w &= ~(~uint64_t{0} << start % 64);  // what was left out in the first word
    for (; w && seen < kCandidates; w &= w - 1) {
      const size_t chunk = i * 64 + static_cast<size_t>(std::countr_zero(w));
      if (chunk >= n) break;
      ++seen;
      size_t count = 0;
      for (auto& [place, other] : p.sources) count += other.have.test(chunk);
      if (count >= best_count) continue;
      best = static_cast<uint32_t>(chunk);
      best_count = count;
    }
  }
  return best;
}

// ---- time

void Planner::tick(int64_t now, PullActions* out) {
  if (now < tick_at_) return;
  tick_at_ = now + options_.retry_ns;
  for (auto& [place, lines] : lines_)
    for (auto& [channel, line] : lines) {
      if (line.asks.empty() || now - line.heard < options_.silent_ns) continue;
      int64_t oldest = now;
      for (auto& [what, ask] : line.asks) oldest = std::min(oldest, ask.at);
      if (now - oldest < options_.silent_ns) continue;
      withdraw_asks(&line);  // others may have it; if nobody has, it is asked again
      line.slow_ns = std::min(std::max(2 * line.slow_ns, options_.retry_ns), 4 * options_.silent_ns);
      line.slow_until = now + line.slow_ns;
    }
  if (moving_ > 0)
    for (auto& [copy, p] : pulls_)
      if (p.state == State::kMoving) nudge(&p, now, out);
  settle(now, out);
}

// Answers that did not come are asked for again.
void Planner::nudge(Pull* p, int64_t now, PullActions* out) {
  if (p->locating && now >= p->locate_at) locate(p, now, out);
  if (p->n_asked > 0 || now < p->nudge_at) return;
  p->nudge_at = now + options_.silent_ns / 2;
  for (auto& [place, s] : p->sources)
    if (!s.complete && s.refusals == 0) meet(p, place, &s, out);
  judge(p, now, out);
}

}  // namespace ray::transfer
