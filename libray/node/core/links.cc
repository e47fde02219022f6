// See links.h.
#include "libray/node/core/links.h"

namespace ray::node {

uint32_t Links::find(uint32_t client, uint32_t worker) const {
  auto c = ends_.find(client);
  if (c == ends_.end()) return 0;
  auto link = c->second.as_client.find(worker);
  return link == c->second.as_client.end() ? 0 : link->second;
}

uint32_t Links::add(uint32_t client, uint32_t worker) {
  uint32_t number = next_++;
  ends_[client].as_client[worker] = number;
  ends_[worker].as_worker.insert(client);
  return number;
}

bool Links::remove(uint32_t client, uint32_t worker) {
  auto c = ends_.find(client), w = ends_.find(worker);
  if (c == ends_.end() || c->second.as_client.erase(worker) == 0) return false;
  w->second.as_worker.erase(client);
  if (w->second.empty()) ends_.erase(w);
  if (c = ends_.find(client); c != ends_.end() && c->second.empty()) ends_.erase(c);
  return true;
}

std::vector<uint32_t> Links::process_gone(uint32_t process) {
  later_.erase(later_.lower_bound({process, 0}), later_.upper_bound({process, UINT32_MAX}));
  auto mine = ends_.find(process);
  if (mine == ends_.end()) return {};
  std::set<uint32_t> peers = mine->second.as_worker;
  for (const auto& [worker, link] : mine->second.as_client) peers.insert(worker);
  ends_.erase(mine);
  for (uint32_t peer : peers) {
    auto other = ends_.find(peer);
    if (other == ends_.end()) continue;
    other->second.as_client.erase(process);
    other->second.as_worker.erase(process);
    if (other->second.empty()) ends_.erase(other);
  }
  peers.erase(process);
  return {peers.begin(), peers.end()};
}

bool Links::is_short(uint32_t client) const {
  auto it = later_.lower_bound({client, 0});
  return it != later_.end() && it->first == client;
}

size_t Links::size() const {
  size_t n = 0;
  for (const auto& [process, ends] : ends_) n += ends.as_client.size();
  return n;
}

std::string Links::check() const {
  size_t clients = 0;
  for (const auto& [process, ends] : ends_) {
    if (ends.empty()) return "a process without links is listed among those that have some";
    clients += ends.as_worker.size();
    for (const auto& [worker, link] : ends.as_client) {
      auto other = ends_.find(worker);
      if (other == ends_.end() || !other->second.as_worker.count(process)) return "a link is known at one end alone";
      if (link == 0 || link >= next_) return "a link has a number that was never given";
    }
  }
  return clients == size() ? "" : "a link is known at one end alone";
}

}  // namespace ray::node
