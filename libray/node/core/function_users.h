// Who may still need the definition of a function: processes that defined it and have not said that they are done with
// it, and actors whose class it is, for their restarts. What nobody needs any more is deleted from the control store;
// its name stays in the readable tables.
//
// A process counts its definitions, because two of its threads may define one function at the same time: it drops as
// many as it knows of.
//
// Who calls it: the daemon's main thread. Pure.
#pragma once
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace ray::node {

class FunctionUsers {
 public:
  void define(uint32_t process, uint64_t key) {
    if (of_process_[process][key]++ == 0) ++users_[key];
  }
  // True: nobody needs it any more. More than it defined is no more than that.
  bool drop(uint32_t process, uint64_t key, uint64_t count);
  // The keys that nobody needs any more.
  std::vector<uint64_t> process_gone(uint32_t process);
  // An actor's class.
  void hold(uint64_t key) { ++users_[key]; }
  bool release(uint64_t key);
  bool used(uint64_t key) const { return users_.count(key) > 0; }
  size_t size() const { return users_.size(); }

 private:
  std::unordered_map<uint32_t, std::unordered_map<uint64_t, uint64_t>> of_process_;  // how often it defined what
  std::unordered_map<uint64_t, uint64_t> users_;  // processes and actors; no zeros
};

}  // namespace ray::node
