// Definitions of functions that processes of this node defined lately, so that workers need not ask the control store,
// which has all of them. Bounded in bytes: above kBytes the least recently used go, but only those that the control
// store has acknowledged; above kMaxBytes nothing more is taken, and who defines waits for the control store.
//
// Who calls it: the daemon's main thread. Pure.
#pragma once
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>

namespace ray::node {

class FunctionCache {
 public:
  static constexpr size_t kBytes = 32u << 20, kMaxBytes = 256u << 20;

  // The packed definition, or null. Valid until the next call.
  const std::string* find(uint64_t key);
  // False: there is no room.
  bool add(uint64_t key, std::string definition);
  void erase(uint64_t key);
  // The control store has it.
  void stored(uint64_t key);
  size_t bytes() const { return bytes_; }
  size_t size() const { return rows_.size(); }

 private:
  struct Row {
    uint64_t key;
    std::string definition;
    bool stored;
  };
  void trim();
  std::list<Row> order_;  // the most recently used first
  std::unordered_map<uint64_t, std::list<Row>::iterator> rows_;
  size_t bytes_ = 0;
};

}  // namespace ray::node
