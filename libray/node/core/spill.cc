// See spill.h.
#include "libray/node/core/spill.h"

#include <algorithm>
#include <utility>

namespace ray::node {

void Spills::step(const std::vector<sched::Spill>& spills, int64_t now, SpillActions* out) {
  for (const sched::Spill& s : spills) {
    const SpillKey key{s.client, s.shape, s.actor};
    Entry& e = entries_[key];
    e.spill = s;
    e.seen = now;
    ask(key, &e, now, out);
  }
  if (now >= tidy_at_) tidy(now);
}

void Spills::ask(const SpillKey& key, Entry* e, int64_t now, SpillActions* out) {
  if (e->asking || now < e->not_before || opening_.size() >= options_.all) return;
  if (e->opening >= std::min(e->spill.more, options_.each)) return;
  if (!may_fit_(e->spill.resources)) {
    e->not_before = now + options_.alone_ns;
    if (e->spill.never) tell(key, e, e->spill.why, out);
    return;
  }
  if (!e->attempt) {
    e->id = key.actor.is_nil() ? e->spill.example : key.actor;
    e->attempt = next_attempt_++;
    if (!next_attempt_) ++next_attempt_;
  }
  e->asking = next_++;
  asking_[e->asking] = key;
  acted_at_ = now;
  SpillAction a{SpillAction::kAsk};
  a.key = key;
  a.number = e->asking;
  a.id = e->id;
  a.attempt = e->attempt;
  a.resources = e->spill.resources;
  a.pool = e->spill.pool;
  out->push_back(std::move(a));
}

void Spills::tell(const SpillKey& key, Entry* e, const std::string& text, SpillActions* out) {
  if (std::exchange(e->told, true)) return;
  SpillAction a{SpillAction::kTell};
  a.key = key;
  a.id = e->spill.example;
  a.text = text;
  out->push_back(std::move(a));
}

void Spills::placed(uint64_t number, const Answer& answer, int64_t now, SpillActions* out) {
  auto asked = asking_.find(number);
  if (asked == asking_.end()) return;
  const SpillKey key = asked->second;
  asking_.erase(asked);
  auto known = entries_.find(key);
  if (known == entries_.end() || known->second.asking != number) return;  // its client is gone
  Entry& e = known->second;
  e.asking = 0;
  if (answer.infeasible) {
    e.not_before = now + std::max(answer.again_ns, options_.hopeless_ns);
    if (e.spill.never) tell(key, &e, answer.text.empty() ? e.spill.why : answer.text, out);
    return;
  }
  if (answer.node == UINT32_MAX || answer.node == self_) {
    if (answer.node == self_) e.attempt = 0;  // answered
    e.not_before = now + std::max(answer.again_ns, options_.again_ns);
    return;
  }
  e.attempt = 0;
  if (auto t = trouble_.find(answer.node); t != trouble_.end() && t->second.until > now) {
    e.not_before = t->second.until;
    return;
  }
  SpillAction a{SpillAction::kOpen};
  a.key = key;
  a.number = next_++;
  a.resources = e.spill.resources;
  a.pool = e.spill.pool;
  a.node = answer.node;
  a.epoch = answer.epoch;
  opening_[a.number] = {key, answer.node};
  ++e.opening;
  acted_at_ = now;
  out->push_back(std::move(a));
  ask(key, &e, now, out);
}

bool Spills::take(uint64_t number, Opening* out) {
  auto it = opening_.find(number);
  if (it == opening_.end()) return false;
  *out = it->second;
  opening_.erase(it);
  if (auto e = entries_.find(out->key); e != entries_.end() && e->second.opening > 0) --e->second.opening;
  return true;
}

void Spills::opened(uint64_t number) {
  Opening o;
  if (!take(number, &o)) return;
  trouble_.erase(o.node);
  if (auto e = entries_.find(o.key); e != entries_.end()) e->second.failures = 0;
}

int64_t Spills::pause(uint32_t failures) const {
  return options_.failed_ns << std::min(failures, options_.max_shift);
}

bool Spills::failed(uint64_t number, int64_t now) {
  Opening o;
  if (!take(number, &o)) return false;
  Trouble& t = trouble_[o.node];
  t.until = std::max(t.until, now + pause(t.failures));
  const bool news = t.failures++ == 0;
  if (auto e = entries_.find(o.key); e != entries_.end()) {
    e->second.not_before = std::max(e->second.not_before, now + pause(e->second.failures));
    ++e->second.failures;
  }
  return news;
}

void Spills::dropped(uint64_t number, int64_t not_before) {
  Opening o;
  if (!take(number, &o)) return;
  if (auto e = entries_.find(o.key); e != entries_.end()) e->second.not_before = std::max(e->second.not_before, not_before);
}

void Spills::client_gone(uint32_t client) {
  for (auto it = entries_.lower_bound({client, 0, {}}); it != entries_.end() && it->first.client == client;) {
    if (it->first.actor.is_nil()) it = entries_.erase(it);
    else ++it;
  }
}

void Spills::forget(const SpillKey& key) { entries_.erase(key); }

// Who waits no more is forgotten, but for those who were told: once is enough.
void Spills::tidy(int64_t now) {
  tidy_at_ = now + options_.forget_ns;
  std::erase_if(entries_, [&](const auto& x) {
    const Entry& e = x.second;
    return !e.told && !e.asking && !e.opening && e.seen + options_.forget_ns < now;
  });
  std::erase_if(trouble_, [&](const auto& x) { return x.second.until + 10 * options_.forget_ns < now; });
}

}  // namespace ray::node
