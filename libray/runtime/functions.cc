// See functions.h.
#include "libray/runtime/functions.h"

#include "libray/base/sha256.h"
#include "libray/runtime/daemon_channel.h"
#include "libray/wire/msgpack.h"

namespace ray {

Status Functions::define(int32_t language, uint32_t kind, const std::string& name, const std::string& definition,
                         Function** out) {
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
    std::lock_guard lock(runtime_mutex_);
    auto it = functions_.find(full);
    if (it != functions_.end()) {
      *out = it->second.get();
      use(*out);
      return Status();
    }
  }
  std::string args;
  wire::Writer(&args).array(5).uint64(key).int64(language).uint64(kind).str(name).bin(definition);
  RAY_TRY(DaemonChannel::check_request(args));
  daemon_.tell(wire::kOpFunctionDefine, args);
  std::lock_guard lock(runtime_mutex_);
  auto [it, fresh] = functions_.try_emplace(full);
  if (fresh) {
    it->second = std::make_unique<Function>();
    Function* f = it->second.get();
    f->digest = &it->first;
    f->runtime = runtime_;
    f->key = key;
    f->language = language;
    f->name = name;
    f->unused = unused_.insert(unused_.end(), f);
  }
  *out = it->second.get();
  ++(*out)->told;
  use(*out);
  return Status();
}

// One user less. The node deletes what no process and no actor has any more; whoever makes the function again defines
// it again.
void Functions::drop(Function* f) {
  if (--f->users > 0) return;
  f->unused = unused_.insert(unused_.end(), f);
  if (unused_.size() <= kMostUnused) return;
  f = unused_.front();
  unused_.pop_front();
  daemon_.up(wire::kUpFunctionDrop, wire::UpFunctionDrop{f->key, f->told});
  functions_.erase(functions_.find(*f->digest));
}

Status Functions::set_worker_command(int32_t language, const std::vector<std::string>& argv, const std::string& code) {
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
Status Functions::check_language(int32_t language) {
  if (languages_ & 1u << language) return Status();
  std::string args;
  wire::Writer(&args).array(1).int64(language);
  RAY_TRY(daemon_.request(wire::kOpWorkerCheck, args, nullptr));
  languages_ |= 1u << language;
  return Status();
}

Status Functions::definition(uint64_t key, FunctionDefinition* out) {
  {
    std::lock_guard lock(fetched_mutex_);
    auto it = fetched_.find(key);
    if (it != fetched_.end()) {
      *out = it->second;
      return Status();
    }
  }
  std::string args, answer;
  wire::Writer(&args).array(1).uint64(key);
  RAY_TRY(daemon_.request(wire::kOpFunctionGet, args, &answer));
  wire::Reader r(answer);
  uint32_t n;
  std::string_view name, definition;
  if (!r.array(&n) || n < 4 || !r.int32(&out->language) || !r.uint32(&out->kind) || !r.str(&name) ||
      !r.bytes(&definition))
    return error(RAY_INTERNAL, "the node daemon answered nonsense about function %lx", key);
  out->name = name;
  out->definition = definition;
  std::lock_guard lock(fetched_mutex_);
  // Few are needed twice, for who runs them keeps what it made of them; functions made on the fly are endless.
  if (definition.size() > 64 * 1024) return Status();
  if (fetched_bytes_ + definition.size() > 4u << 20) {
    fetched_.clear();
    fetched_bytes_ = 0;
  }
  if (fetched_.emplace(key, *out).second) fetched_bytes_ += definition.size();
  return Status();
}

std::string Functions::check() const {
  if (unused_.size() > kMostUnused) return "more functions without users are kept than may be";
  size_t n = 0;
  for (auto& [digest, f] : functions_) {
    n += f->users == 0;
    if (f->digest != &digest) return "function " + f->name + " does not know its own digest";
  }
  return n == unused_.size() ? "" : "the functions without users are not those in the list of them";
}

uint64_t native_function_key(const std::string& name) {
  return sha256_key("native:" + name);
}

}  // namespace ray
