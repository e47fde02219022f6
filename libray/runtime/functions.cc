// Functions as those who call them know them: defined with the node once, forgotten when nobody uses them; and which
// languages there are workers for. See runtime.h.
#include "libray/base/sha256.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/wire/msgpack.h"

namespace ray {

Status Runtime::function(int32_t language, uint32_t kind, const std::string& name,
                         const std::string& definition, Function** out) {
  if (name.empty()) return error(RAY_INVALID_ARGUMENT, "a function needs a name");
  std::string full = std::to_string(language) + ":" + std::to_string(kind) + ":" + name;
  full += '\0';
  full += definition;
  // Known by its digest: definitions may be large, and functions made on the fly are endless. A worker finds a function
  // by its key alone, and takes equal keys for one definition.
  const auto digest = sha256(full);
  uint64_t key = 0;
  for (int i = 0; i < 8; ++i) key = key << 8 | digest[static_cast<size_t>(i)];
  if (kind == wire::kFnNative) key = native_function_key(name);
  full.assign(reinterpret_cast<const char*>(digest.data()), digest.size());
  {
    std::lock_guard lock(mutex_);
    auto it = functions_.find(full);
    if (it != functions_.end()) {
      *out = it->second.get();
      use_function(*out);
      return Status();
    }
  }
  std::string args;
  wire::Writer(&args).array(5).uint64(key).int64(language).uint64(kind).str(name).bin(definition);
  RAY_TRY(DaemonChannel::check_request(args));
  daemon_.tell(wire::kOpFunctionDefine, args);
  std::lock_guard lock(mutex_);
  auto [it, fresh] = functions_.try_emplace(full);
  if (fresh) {
    it->second = std::make_unique<Function>();
    Function* f = it->second.get();
    f->digest = &it->first;
    f->runtime = this;
    f->key = key;
    f->language = language;
    f->name = name;
    f->unused = unused_functions_.insert(unused_functions_.end(), f);
  }
  *out = it->second.get();
  ++(*out)->told;
  use_function(*out);
  return Status();
}

// mutex_ held.
void Runtime::use_function(Function* f) {
  if (f->users++ == 0) unused_functions_.erase(f->unused);
}

// One user less. The node deletes what no process and no actor has any more; whoever makes the function again defines
// it again. mutex_ held.
void Runtime::drop_function(Function* f) {
  if (--f->users > 0) return;
  f->unused = unused_functions_.insert(unused_functions_.end(), f);
  if (unused_functions_.size() <= kUnusedFunctions) return;
  f = unused_functions_.front();
  unused_functions_.pop_front();
  daemon_.up(wire::kUpFunctionDrop, wire::UpFunctionDrop{f->key, f->told});
  functions_.erase(functions_.find(*f->digest));
}

void Runtime::function_release(Function* f) {
  if (foreign()) return;
  std::lock_guard lock(mutex_);
  drop_function(f);
}

Status Runtime::set_worker_command(int32_t language, const std::vector<std::string>& argv, const std::string& code) {
  std::string args;
  wire::Writer w(&args);
  w.array(3).int64(language).array(static_cast<uint32_t>(argv.size()));
  for (const std::string& a : argv) w.str(a);
  w.str(code);
  RAY_TRY(daemon_.request(wire::kOpWorkerCommand, args, nullptr));
  languages_ |= 1u << language;
  return Status();
}

// Asked when a function of another language is published: a task that no worker can ever take would wait for ever.
Status Runtime::check_language(int32_t language) {
  if (language == language_ || language == RAY_LANG_NATIVE || languages_ & 1u << language) return Status();
  std::string args;
  wire::Writer(&args).array(1).int64(language);
  RAY_TRY(daemon_.request(wire::kOpWorkerCheck, args, nullptr));
  languages_ |= 1u << language;
  return Status();
}

uint64_t native_function_key(const std::string& name) {
  return sha256_key("native:" + name);
}

}  // namespace ray
