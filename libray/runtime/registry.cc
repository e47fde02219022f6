// See registry.h.
#include "libray/runtime/registry.h"

#include <dlfcn.h>

#include "libray/runtime/types.h"

namespace ray {

namespace {
// While a library's initialiser runs on this thread: the first name that was taken.
thread_local std::string* t_taken = nullptr;
}  // namespace

Registry& Registry::instance() {
  static auto* r = new Registry;
  return *r;
}

namespace {
thread_local bool t_loading = false;  // this thread runs the initialiser of a library
}

Status Registry::open() const {
  if (!closed_ || t_loading) return Status();
  return error(RAY_WRONG_STATE,
               "functions, classes and methods are registered before the first ray_init of a program: its workers "
               "know no others");
}

Status Registry::add_function(const std::string& name, NativeFunction f) {
  std::lock_guard lock(mutex_);
  if (!functions_.emplace(native_function_key(name), f).second) {
    if (t_taken && t_taken->empty()) *t_taken = name;
    return error(RAY_ALREADY_EXISTS, "function '%s' is registered already", name.c_str());
  }
  names_[native_function_key(name)] = name;
  return Status();
}

Status Registry::add_class(const std::string& name, NativeFunction create,
                           void (*destroy)(void*, void*)) {
  RAY_TRY(add_function(name, create));
  std::lock_guard lock(mutex_);
  classes_[name].create = create;
  classes_[name].destroy = destroy;
  return Status();
}

Status Registry::add_method(const std::string& klass, const std::string& method, NativeFunction f) {
  std::lock_guard lock(mutex_);
  auto it = classes_.find(klass);
  if (it == classes_.end())
    return error(RAY_NOT_FOUND, "actor class '%s' is not registered: register it first", klass.c_str());
  if (!it->second.methods.emplace(method, f).second)
    return error(RAY_ALREADY_EXISTS, "method '%s.%s' is registered already", klass.c_str(),
                 method.c_str());
  return Status();
}

const std::string* Registry::name_of(uint64_t key) {
  std::lock_guard lock(mutex_);
  auto it = names_.find(key);
  return it == names_.end() ? nullptr : &it->second;
}

bool Registry::alias(uint64_t key, const std::string& name) {
  std::lock_guard lock(mutex_);
  auto it = functions_.find(native_function_key(name));
  if (it == functions_.end()) return false;
  functions_.emplace(key, it->second);
  names_.emplace(key, name);
  return true;
}

NativeFunction Registry::function(uint64_t key) {
  std::lock_guard lock(mutex_);
  auto it = functions_.find(key);
  return it == functions_.end() ? NativeFunction{} : it->second;
}

NativeFunction Registry::method(const std::string& klass, const std::string& method) {
  std::lock_guard lock(mutex_);
  auto it = classes_.find(klass);
  if (it == classes_.end()) return {};
  auto m = it->second.methods.find(method);
  return m == it->second.methods.end() ? NativeFunction{} : m->second;
}

void (*Registry::destroyer(const std::string& klass, void** user))(void*, void*) {
  std::lock_guard lock(mutex_);
  auto it = classes_.find(klass);
  if (it == classes_.end()) return nullptr;
  *user = it->second.create.user;
  return it->second.destroy;
}

bool Registry::has_class(const std::string& klass) {
  std::lock_guard lock(mutex_);
  return classes_.count(klass) > 0;
}

bool Registry::used() {
  std::lock_guard lock(mutex_);
  return !functions_.empty();
}

// Its name would stand for a function of somebody else.
static Status loaded(const std::string& path, const std::string& taken) {
  if (taken.empty()) return Status();
  return error(RAY_ALREADY_EXISTS,
               "library %s registers '%s', which this worker has from elsewhere: give it another name",
               path.c_str(), taken.c_str());
}

Status Registry::load_library(const std::string& path) {
  std::lock_guard load(load_mutex_);  // its initialiser calls add_function: not under mutex_
  {
    std::lock_guard lock(mutex_);
    if (auto it = libraries_.find(path); it != libraries_.end()) return loaded(path, it->second);
  }
  void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return error(RAY_NOT_FOUND, "cannot load library %s: %s", path.c_str(), ::dlerror());
  auto init = reinterpret_cast<void (*)()>(::dlsym(handle, "ray_module_init"));
  if (!init) {
    ::dlclose(handle);
    return error(RAY_NOT_FOUND, "library %s has no function ray_module_init", path.c_str());
  }
  std::string taken;
  t_taken = &taken;
  t_loading = true;
  init();
  t_loading = false;
  t_taken = nullptr;
  std::lock_guard lock(mutex_);
  libraries_[path] = taken;
  return loaded(path, taken);
}

}  // namespace ray
