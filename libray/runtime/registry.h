// Registry: native functions, actor classes and methods of this process, by name and by function key.
// Filled before the first ray_init, because workers register what stands before it, and by shared libraries
// when they are loaded; read by the worker loop.
// Any thread.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "libray/base/fork.h"
#include "libray/base/status.h"

namespace ray {

struct NativeFunction {
  ray_task_fn fn = nullptr;
  void* user = nullptr;
};
struct NativeClass {
  NativeFunction create;
  void (*destroy)(void* self, void* user) = nullptr;
  std::unordered_map<std::string, NativeFunction> methods;
};

class Registry {
 public:
  static Registry& instance();
  // A runtime was made: from now on only shared libraries may register.
  void close() { closed_ = true; }
  Status add_function(const std::string& name, NativeFunction f);
  Status add_class(const std::string& name, NativeFunction create, void (*destroy)(void*, void*));
  Status add_method(const std::string& klass, const std::string& method, NativeFunction f);
  // RAY_WRONG_STATE once it is closed.
  Status open() const;
  // The registered function of that name answers to a further key from now on. False: there is none.
  bool alias(uint64_t key, const std::string& name);
  // Copies, so that a caller needs no lock while it runs user code. fn null = unknown.
  NativeFunction function(uint64_t key);
  const std::string* name_of(uint64_t key);  // null: none is registered; stays
  NativeFunction method(const std::string& klass, const std::string& method);
  void (*destroyer(const std::string& klass, void** user))(void*, void*);
  bool has_class(const std::string& klass);
  bool used();
  // Loads a shared library once and runs its ray_module_init.
  Status load_library(const std::string& path);

 private:
  Registry() { held_over_forks(&mutex_); }
  std::atomic<bool> closed_{false};
  std::mutex mutex_;
  std::unordered_map<uint64_t, NativeFunction> functions_;
  std::unordered_map<uint64_t, std::string> names_;  // of the functions
  std::unordered_map<std::string, NativeClass> classes_;
  std::unordered_map<std::string, std::string> libraries_;  // by path: what it could not register, or empty
  std::mutex load_mutex_;
};

}  // namespace ray
