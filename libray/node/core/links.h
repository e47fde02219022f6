// Who is linked with whom: a client has at most one link to a worker. And which links could not be made: whoever lacks one
// gets no other until it is tried again. Pure; used by NodeCore.
//
// Invariants: each link is known at both ends; numbers are never used again; a process that is gone is at no end.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ray::node {

class Links {
 public:
  uint32_t find(uint32_t client, uint32_t worker) const;  // 0: there is none
  uint32_t add(uint32_t client, uint32_t worker);
  bool remove(uint32_t client, uint32_t worker);
  // Everybody that it was linked with, in order.
  std::vector<uint32_t> process_gone(uint32_t process);

  void later(uint32_t client, uint32_t worker) { later_.insert({client, worker}); }
  bool is_short(uint32_t client) const;
  std::set<std::pair<uint32_t, uint32_t>> take_later() { return std::exchange(later_, {}); }

  size_t size() const;
  std::string check() const;

 private:
  struct Ends {
    std::map<uint32_t, uint32_t> as_client;  // worker -> link
    std::set<uint32_t> as_worker;            // clients
    bool empty() const { return as_client.empty() && as_worker.empty(); }
  };
  std::unordered_map<uint32_t, Ends> ends_;  // its order decides nothing
  std::set<std::pair<uint32_t, uint32_t>> later_;  // client, worker
  uint32_t next_ = 1;
};

}  // namespace ray::node
