// Running native code in a worker: the pull loop, registered functions and classes, functions of
// shared libraries, C symbols through libffi. See worker.h.
#include <unistd.h>

#include <cstdio>
#include <unordered_map>

#include "libray/base/log.h"
#include "libray/ffi/ffi.h"
#include "libray/runtime/registry.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"
#include "libray/wire/named.h"

namespace ray {
namespace {

Result<std::shared_ptr<const ffi::Symbol>> symbol_of(uint64_t key, const FunctionDefinition& d) {
  static std::mutex mutex;
  static auto* cache = new std::unordered_map<uint64_t, std::shared_ptr<const ffi::Symbol>>;
  std::lock_guard lock(mutex);
  auto it = cache->find(key);
  if (it != cache->end()) return it->second;
  auto s = ffi::Symbol::open_definition(d.definition);
  if (s.ok()) (*cache)[key] = *s;
  return s;
}

ray_code call_symbol(WorkerSide* side, Execution* e) {
  auto symbol = symbol_of(e->header.function, e->definition);
  if (!symbol.ok()) {
    side->fail(e, symbol.status().message(), nullptr);
    return RAY_TASK_FAILED;
  }
  std::vector<ffi::ArgView> args;
  for (size_t i = 0; i < e->args.size(); ++i) {
    const uint32_t format = e->args[i].format;
    if (format != RAY_FMT_MSGPACK && format != RAY_FMT_RAW) {
      const char* what = format == RAY_FMT_PICKLE5     ? "a pickle of Python: put it with portable=True"
                         : format == RAY_FMT_JAVA      ? "in Java's serialisation: put it portable"
                         : format == RAY_FMT_ARROW_IPC ? "an Arrow table: give its bytes"
                                                       : "in a private format of another language";
      side->fail(e, "argument " + std::to_string(i) + " of " + e->definition.name + " is " + what +
                        " (a C function takes numbers, texts and bytes)", nullptr);
      return RAY_TASK_FAILED;
    }
    args.push_back({e->args[i].data, static_cast<size_t>(e->args[i].size), format == RAY_FMT_RAW});
  }
  std::string result;
  wire::Writer w(&result);
  Status s = (*symbol)->call(args.data(), args.size(), &w);
  side->end_forked_child(s.ok() ? RAY_OK : RAY_TASK_FAILED);
  if (s.ok() && !e->results.empty())
    s = side->set_result(e, 0, ray_plain(result.data(), result.size(), RAY_FMT_MSGPACK));
  if (s.ok()) return RAY_OK;
  side->fail(e, e->definition.name + ": " + s.message(), nullptr);
  return RAY_TASK_FAILED;
}

}  // namespace

// A function forked, and it is the child that comes back here: the task is its parent's to answer. For the child this is
// the end of its program, without the exit handlers of the worker that it is a copy of.
void WorkerSide::end_forked_child(ray_code code) {
  if (__builtin_expect(!runtime_->foreign(), 1)) return;
  std::fflush(nullptr);
  ::_exit(code == RAY_OK ? 0 : 1);
}

// What is registered stays, so a thread asks no more than once in a row for the same.
static NativeFunction registered_function(uint64_t key) {
  static thread_local struct {
    uint64_t key;
    NativeFunction f;
  } last{};
  if (!last.f.fn || last.key != key) last = {key, Registry::instance().function(key)};
  return last.f;
}

static NativeFunction registered_method(const std::string& klass, const std::string& method) {
  static thread_local struct {
    std::string klass, method;
    NativeFunction f;
  } last;
  if (!last.f.fn || last.method != method || last.klass != klass)
    last = {klass, method, Registry::instance().method(klass, method)};
  return last.f;
}

void WorkerSide::execute(Execution* e) {
  const wire::TaskHeader& h = e->header;
  NativeFunction f;
  if (h.kind == RAY_KIND_ACTOR_CALL) {
    f = registered_method(class_name_, e->method);
    if (!f.fn) {
      fail(e, "actor class '" + class_name_ + "' has no method '" + e->method +
                  "': register it with ray_register_method before ray_init", nullptr);
      (void)finish(e, RAY_UNKNOWN_FUNCTION);
      return;
    }
  } else {
    f = registered_function(h.function);
    if (!f.fn || h.kind == RAY_KIND_ACTOR_CREATE) {
      Status s = definition(e);
      if (s.ok() && e->definition.kind == wire::kFnSymbol) {
        (void)finish(e, call_symbol(this, e));
        return;
      }
      if (s.ok() && e->definition.kind == wire::kFnLibrary) {
        s = Registry::instance().load_library(e->definition.definition);
        if (s.ok()) f = Registry::instance().function(native_function_key(e->definition.name));
      }
      // A program in another language than C that registers its functions: known by their names.
      if (s.ok() && e->definition.kind == wire::kFnOpaque && wire::is_named(e->definition.definition) &&
          Registry::instance().alias(h.function, e->definition.name))
        f = Registry::instance().function(h.function);
      if (!f.fn) {
        std::string name = s.ok() ? e->definition.name : "?";
        fail(e, s.ok() ? "function '" + name + "' is not known to this worker: register it with "
                             "ray_register_function before ray_init, or name its library"
                       : s.message(), nullptr);
        (void)finish(e, s.ok() || s.code() == RAY_NOT_FOUND ? RAY_UNKNOWN_FUNCTION
                        : s.code() == RAY_CANCELLED         ? RAY_CANCELLED  // while it asked for the definition
                                                            : RAY_TASK_FAILED);
        return;
      }
    }
    if (h.kind == RAY_KIND_ACTOR_CREATE && !e->definition_known) {  // its methods would not be found
      fail(e, "the name of the class is not known: the node daemon did not answer", nullptr);
      (void)finish(e, RAY_TASK_FAILED);
      return;
    }
    if (h.kind == RAY_KIND_ACTOR_CREATE) class_name_ = e->definition.name;
  }
  e->registered = true;
  ray_code code = f.fn(static_cast<ray_task*>(e->handle), f.user);
  end_forked_child(code);
  (void)finish(e, code);
}

Status WorkerSide::run() {
  if (runs(runtime_->context()))
    return error(RAY_WRONG_STATE, "a task cannot run the loop that serves tasks: it would wait for its own end");
  for (;;) {
    Execution* e;
    Status s = next(-1, &e);
    if (s.code() == RAY_CANCELLED) break;
    if (!s.ok()) return s;
    execute(e);
  }
  if (is_actor_ && !stop_) (void)exit_actor("it has ended by its own will");  // its time limit starts
  void* user = nullptr;
  auto destroy = Registry::instance().destroyer(class_name_, &user);
  if (destroy && self_ && !stop_) destroy(self_, user);
  return Status();
}

}  // namespace ray
