// Functions: those that this process calls, and the definitions of those that it runs. A function is defined with the node
// once, and forgotten when nobody has used it for long; a definition is fetched from the node. And which languages there are
// workers for.
//
// Who: the C API and the relay define, tasks use and drop, WorkerSide asks for definitions. Threads: any. use, drop, size and
// check want Runtime's mutex held; define takes it and holds it over no message; definition() has a lock of its own, a leaf.
//
// Invariants: (1) a function has one entry, found by the digest of all that it is; (2) those without users are in the list of
// the unused, the longest unused first, at most kMostUnused; (3) the node hears `drop` as often as it was told the definition.
#pragma once
#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "libray/runtime/types.h"

namespace ray {

class DaemonChannel;

class Functions {
 public:
  Functions(Runtime* runtime, std::mutex& runtime_mutex, DaemonChannel& daemon)
      : runtime_(runtime), runtime_mutex_(runtime_mutex), daemon_(daemon) {}

  Status define(int32_t language, uint32_t kind, const std::string& name, const std::string& definition, Function** out);
  void use(Function* f) {
    if (f->users++ == 0) unused_.erase(f->unused);
  }
  void drop(Function* f);
  size_t size() const { return functions_.size(); }

  // There are workers of it, as far as this process knows.
  void add_language(int32_t language) { languages_ |= 1u << language; }
  Status check_language(int32_t language);
  // What this job's workers of a language are, see ray_worker_command.
  Status set_worker_command(int32_t language, const std::vector<std::string>& argv, const std::string& code);

  // Of a task that runs here. Few are needed twice.
  Status definition(uint64_t key, FunctionDefinition* out);
  std::string check() const;  // what is wrong, empty: nothing

 private:
  static constexpr size_t kMostUnused = 1024;  // programs make the same function again and again
  Runtime* const runtime_;
  std::mutex& runtime_mutex_;
  DaemonChannel& daemon_;
  std::unordered_map<std::string, std::unique_ptr<Function>> functions_;
  std::list<Function*> unused_;
  std::atomic<uint32_t> languages_{0};  // a bit for each
  std::mutex fetched_mutex_;
  std::unordered_map<uint64_t, FunctionDefinition> fetched_;  // by key
  size_t fetched_bytes_ = 0;                                  // of definitions in them
};

}  // namespace ray
