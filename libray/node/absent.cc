// Until the control store and the object store are part of the build: nothing is journaled or stored.
#include <signal.h>
#include <unistd.h>

#include <map>

#include "gcs/ops.h"
#include "gcs/shard.h"
#include "store/daemon.h"

namespace ray {
#ifdef LIBRAY_NO_GCS
namespace gcs {
namespace {
class None : public Client {
 public:
  uint32_t shards() const override { return 1; }
  void append_lineage(uint32_t, std::string, uint32_t, Appended done) override { done(Status(), 0); }
  void call(uint32_t, uint32_t op, std::string, Answered done) override {
    if (op == kNodePut || op == kJobPut || op == kFunctionDefine) return done(Status(), "\x90");
    done(error(RAY_UNAVAILABLE, "no control store in this build"), "");
  }
  void subscribe(uint32_t, const std::string&, const std::string&, Changed) override {}
};
}  // namespace
Result<std::unique_ptr<Client>> Client::connect(const ClientOptions&) {
  return std::unique_ptr<Client>(new None);
}
uint32_t slot_of_function(uint64_t key) { return static_cast<uint32_t>(key % kGcsSlots); }
uint32_t slot_of_kv(std::string_view, std::string_view key) {
  return gcs_slot_of_key(key.data(), key.size());
}
void register_actor(Client*, const ActorSpec&, Client::Answered done) { done(Status(), "\x90"); }
void update_actor(Client*, const ActorChange&, Client::Answered done) { done(Status(), "\x90"); }
void query_all(Client*, std::string_view, std::string_view, Client::Answered done) { done(Status(), "\x90"); }
void kv_list_all(Client*, std::string_view, std::string_view, Client::Answered done) { done(Status(), "\x90"); }
int gcs_main(const ShardOptions&) {
  ::pause();
  return 0;
}
}  // namespace gcs
#endif
#ifdef LIBRAY_NO_STORE
namespace store {
namespace {
class None : public Daemon {
  void drop(const ObjectId&, const wire::Location&) override {}
  DaemonStats stats() override { return {}; }
  std::string list_msgpack(uint32_t) override { return "\x90"; }
};
}  // namespace
Result<std::unique_ptr<Daemon>> Daemon::start(const DaemonOptions&) {
  return std::unique_ptr<Daemon>(new None);
}
}  // namespace store
#endif
}  // namespace ray
