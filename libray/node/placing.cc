// See placing.h.
#include "libray/node/placing.h"

#include <cmath>

namespace ray::node {

using cluster::Question;

bool Placing::ask(Question q, std::function<void(const Placed&)> placed, int64_t now) {
  forget(now);
  Asked a;
  auto known = nowhere_.find({q.task, q.attempt});
  if (known != nowhere_.end()) {
    auto first = known->second.begin();
    q.number = first->first;
    if (first->second.counted) count(first->second.needs, -1);
    known->second.erase(first);
    if (known->second.empty()) nowhere_.erase(known);
  } else {
    q.number = next_++;
    ++open_;
  }
  a.counted = cluster::enough(own_, q.needs);
  if (a.counted) count(q.needs, +1);
  a.question = std::move(q);
  a.placed = std::move(placed);
  asked_.push_back(std::move(a));
  return asked_.size() == 1;
}

std::vector<std::vector<Placing::Asked>> Placing::take() {
  std::vector<std::vector<Asked>> out;
  size_t bytes = 0;
  for (Asked& a : asked_) {
    if (out.empty() || out.back().size() >= cluster::kMaxQuestions || bytes >= cluster::kMaxQuestionBytes) {
      out.emplace_back();
      bytes = 0;
    }
    bytes += cluster::encoded_size(a.question);
    out.back().push_back(std::move(a));
  }
  asked_.clear();
  return out;
}

void Placing::answered(const Asked& a, bool nowhere, int64_t now) {
  const Question& q = a.question;
  if (nowhere) {
    const Key key(q.task, q.attempt);
    nowhere_[key][q.number] = {now, a.counted, q.needs};
    again_.push_back({now, key, q.number});
    return;
  }
  if (a.counted) count(q.needs, -1);
  --open_;
}

void Placing::forget(int64_t now) {
  for (; !again_.empty() && again_.front().at + kForgetNs <= now; again_.pop_front()) {
    auto of_key = nowhere_.find(again_.front().key);
    if (of_key == nowhere_.end()) continue;
    auto it = of_key->second.find(again_.front().number);
    if (it == of_key->second.end() || it->second.at != again_.front().at) continue;  // it was asked again
    if (it->second.counted) count(it->second.needs, -1);
    --open_;
    of_key->second.erase(it);
    if (of_key->second.empty()) nowhere_.erase(of_key);
  }
}

void Placing::count(const wire::Resources& needs, int64_t sign) {
  for (const auto& [name, amount] : needs) {
    int64_t& n = sum_[name];
    n += sign * std::llround(amount / wire::kResourceUnit);
    if (n == 0) sum_.erase(name);
  }
}

void Placing::subtract_open(wire::Resources* queued, int64_t now) {
  forget(now);
  for (const auto& [name, n] : sum_) {
    auto it = queued->find(name);
    if (it == queued->end()) continue;
    it->second -= static_cast<double>(n) * wire::kResourceUnit;
    if (it->second < wire::kResourceUnit / 2) queued->erase(it);
  }
}

}  // namespace ray::node
