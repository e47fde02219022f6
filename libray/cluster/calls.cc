// See calls.h.
#include "libray/cluster/calls.h"

#include <algorithm>

namespace ray::cluster {

uint64_t Calls::call(NodeIndex to, uint32_t op, std::string body, int64_t until, CallActions* out) {
  const uint64_t number = next_++;
  calls_[number] = {to, until};
  CallAction a{CallAction::kSend};
  a.message.kind = Kind::kRequest;
  a.message.to = to;
  a.message.number = number;
  a.message.op = op;
  a.message.text = std::move(body);
  out->push_back(std::move(a));
  return number;
}

void Calls::done(uint64_t number, int32_t code, std::string text, CallActions* out) {
  calls_.erase(number);
  CallAction a{CallAction::kDone};
  a.number = number;
  a.code = code;
  a.text = std::move(text);
  out->push_back(std::move(a));
}

void Calls::on_answer(const Message& m, CallActions* out) {
  auto it = calls_.find(m.number);
  if (it != calls_.end() && it->second.to == m.from) done(m.number, m.code, m.text, out);
}

void Calls::on_dead(const Row& row, CallActions* out) {
  std::vector<uint64_t> lost;
  for (const auto& [number, call] : calls_)
    if (call.to == row.index) lost.push_back(number);
  for (uint64_t number : lost)
    done(number, RAY_NODE_DIED, strprintf("node %u (%s) is dead: %s", row.index, row.about.address.c_str(),
                                          row.cause.c_str()), out);
  for (auto it = served_.lower_bound({row.index, 0}); it != served_.end() && it->first.first == row.index;) {
    if (it->second.answered) {
      kept_bytes_ -= it->second.text.size();
      kept_.erase(std::find(kept_.begin(), kept_.end(), it->first));
    }
    it = served_.erase(it);
  }
}

void Calls::tick(int64_t now, CallActions* out) {
  std::vector<std::pair<uint64_t, NodeIndex>> late;
  for (const auto& [number, call] : calls_)
    if (call.until <= now) late.emplace_back(number, call.to);
  for (const auto& [number, to] : late) done(number, RAY_TIMED_OUT, strprintf("node %u did not answer in time", to), out);
}

int64_t Calls::deadline() const {
  int64_t at = INT64_MAX;
  for (const auto& [number, call] : calls_) at = std::min(at, call.until);
  return at;
}

// ---- who answers

void Calls::on_request(Message m, CallActions* out) {
  auto [it, fresh] = served_.try_emplace({m.from, m.number});
  if (!fresh) {
    if (it->second.answered) reply(it->first, it->second, out);
    return;
  }
  CallAction a{CallAction::kServe};
  a.message = std::move(m);
  out->push_back(std::move(a));
}

void Calls::reply(const Name& name, const Served& s, CallActions* out) const {
  CallAction a{CallAction::kSend};
  a.message.kind = Kind::kAnswer;
  a.message.to = name.first;
  a.message.number = name.second;
  a.message.code = s.code;
  a.message.text = s.text;
  out->push_back(std::move(a));
}

void Calls::answer(NodeIndex to, uint64_t number, int32_t code, std::string body, CallActions* out) {
  auto it = served_.find({to, number});
  if (it == served_.end() || it->second.answered) return;  // the asker is dead
  it->second = {true, code, std::move(body)};
  reply(it->first, it->second, out);
  kept_.push_back(it->first);
  kept_bytes_ += it->second.text.size();
  while (kept_.size() > options_.kept_answers || (kept_bytes_ > options_.kept_bytes && kept_.size() > 1)) {
    auto old = served_.find(kept_.front());
    kept_bytes_ -= old->second.text.size();
    served_.erase(old);
    kept_.pop_front();
  }
}

}  // namespace ray::cluster
