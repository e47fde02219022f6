// See reclaim_order.h.
#include "libray/sched/reclaim_order.h"

namespace ray::sched {

void ReclaimOrder::unlink(uint32_t id, const Client& c) {
  for (auto& [entry, kinds] : c.by_entry) {
    if (entry >= own_) continue;
    Heads& heads = own_entries_[entry];
    for (size_t s = 0; s < 2; ++s)
      if (!kinds[s].empty()) heads[s].erase({c.leases, kinds[s].begin()->first, id});
    if (heads[0].empty() && heads[1].empty()) own_entries_.erase(entry);
  }
}

void ReclaimOrder::link(uint32_t id, const Client& c) {
  for (auto& [entry, kinds] : c.by_entry) {
    if (entry >= own_) continue;
    for (size_t s = 0; s < 2; ++s)
      if (!kinds[s].empty()) own_entries_[entry][s].insert({c.leases, kinds[s].begin()->first, id});
  }
}

void ReclaimOrder::add(uint32_t client, uint32_t shape, Age age, const std::vector<uint32_t>& entries) {
  Client& c = clients_[client];
  unlink(client, c);
  ++c.leases;
  Shape& s = c.shapes[shape];
  ++s.leases;
  for (uint32_t entry : entries) {
    std::set<Age>& ages = s.by_entry[entry];
    Oldest& oldest = c.by_entry[entry][s.surplus];
    if (!ages.empty()) oldest.erase({*ages.begin(), shape});
    ages.insert(age);
    oldest.insert({*ages.begin(), shape});
    if (entry >= own_) holders_[entry].insert(client);
  }
  link(client, c);
}

void ReclaimOrder::remove(uint32_t client, uint32_t shape, Age age, const std::vector<uint32_t>& entries) {
  Client& c = clients_.at(client);
  unlink(client, c);
  --c.leases;
  Shape& s = c.shapes.at(shape);
  for (uint32_t entry : entries) {
    auto ages = s.by_entry.find(entry);
    auto kinds = c.by_entry.find(entry);
    Oldest& oldest = kinds->second[s.surplus];
    oldest.erase({*ages->second.begin(), shape});
    ages->second.erase(age);
    if (ages->second.empty()) s.by_entry.erase(ages);
    else oldest.insert({*ages->second.begin(), shape});
    if (!kinds->second[0].empty() || !kinds->second[1].empty()) continue;
    c.by_entry.erase(kinds);
    if (auto h = holders_.find(entry); h != holders_.end()) {
      h->second.erase(client);
      if (h->second.empty()) holders_.erase(h);
    }
  }
  --s.leases;
  link(client, c);
  tidy(client, shape);
}

void ReclaimOrder::set_surplus(uint32_t client, uint32_t shape, bool surplus) {
  if (!surplus && !clients_.count(client)) return;
  Client& c = clients_[client];
  Shape& s = c.shapes[shape];
  if (s.surplus != surplus) {
    unlink(client, c);
    for (const auto& [entry, ages] : s.by_entry) {
      auto& kinds = c.by_entry[entry];
      kinds[!surplus].erase({*ages.begin(), shape});
      kinds[surplus].insert({*ages.begin(), shape});
    }
    s.surplus = surplus;
    link(client, c);
  }
  tidy(client, shape);
}

// What says nothing is not kept.
void ReclaimOrder::tidy(uint32_t client, uint32_t shape) {
  auto c = clients_.find(client);
  auto s = c->second.shapes.find(shape);
  if (s->second.leases == 0 && !s->second.surplus) c->second.shapes.erase(s);
  if (c->second.shapes.empty()) clients_.erase(c);
}

size_t ReclaimOrder::size() const { return clients_.size(); }

// ---- a walk

ReclaimOrder::Walk::Walk(const ReclaimOrder* order, const std::vector<uint32_t>& entries) : order_(order) {
  for (uint32_t entry : entries) {
    const Heads* heads = nullptr;
    if (entry < order->own_) {
      auto own = order->own_entries_.find(entry);
      if (own != order->own_entries_.end()) heads = &own->second;
    } else if (auto h = order->holders_.find(entry); h != order->holders_.end() && !sorted_.count(entry)) {
      Heads& sorted = sorted_[entry];
      for (uint32_t id : h->second) {
        const Client& c = order->clients_.at(id);
        const auto& kinds = c.by_entry.at(entry);
        for (size_t s = 0; s < 2; ++s)
          if (!kinds[s].empty()) sorted[s].insert({c.leases, kinds[s].begin()->first, id});
        ++order->visited_;
      }
      heads = &sorted;
    }
    if (!heads) continue;
    for (size_t s = 0; s < 2; ++s) push_client(entry, s != 0, &(*heads)[s], (*heads)[s].begin());
  }
}

void ReclaimOrder::Walk::push_client(uint32_t entry, bool surplus, const std::set<Head>* heads,
                                     std::set<Head>::const_iterator head) {
  if (head == heads->end()) return;
  Cursor c{At::kClient, surplus, head->leases, head->age, entry, head->client, 0, head, heads, {}, nullptr, {}, nullptr};
  queue_.push(c);
}

void ReclaimOrder::Walk::push_shape(Cursor c, Oldest::const_iterator oldest) {
  if (oldest == c.shapes->end()) return;
  c.at = At::kShape;
  c.oldest = oldest;
  c.age = oldest->first;
  queue_.push(c);
}

void ReclaimOrder::Walk::push_lease(Cursor c, std::set<Age>::const_iterator lease) {
  if (lease == c.ages->end()) return;
  c.at = At::kLease;
  c.lease = lease;
  c.age = *lease;
  queue_.push(c);
}

bool ReclaimOrder::Walk::passed(const Cursor& c) const {
  return !c.surplus && (c.leases == passed_level_ || passed_.count(c.client));
}

std::optional<ReclaimOrder::Victim> ReclaimOrder::Walk::next() {
  while (!queue_.empty()) {
    Cursor c = queue_.top();
    queue_.pop();
    ++order_->visited_;
    const bool pass = passed(c);
    if (c.at == At::kClient) {
      auto further = std::next(c.head);
      if (!c.surplus && c.leases == passed_level_)
        further = c.heads->upper_bound({c.leases, {INT64_MAX, UINT32_MAX}, UINT32_MAX});
      push_client(c.entry, c.surplus, c.heads, further);
      if (pass) continue;
      const Client& client = order_->clients_.at(c.client);
      c.shapes = &client.by_entry.at(c.entry)[c.surplus];
      c.oldest = c.shapes->begin();
    }
    if (pass) continue;
    if (c.at != At::kLease) {
      push_shape(c, std::next(c.oldest));
      c.shape = c.oldest->second;
      c.ages = &order_->clients_.at(c.client).shapes.at(c.shape).by_entry.at(c.entry);
      c.lease = c.ages->begin();
    }
    push_lease(c, std::next(c.lease));
    if (c.age.lease == last_) continue;
    last_ = c.age.lease;
    return Victim{c.client, c.age.lease, c.age.granted_at, c.surplus, c.leases};
  }
  return std::nullopt;
}

}  // namespace ray::sched
