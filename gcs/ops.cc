// See ops.h.
#include "gcs/ops.h"

#include <memory>
#include <mutex>

#include "libray/wire/cursor.h"

namespace ray::gcs {

static const char* const kNames[] = {"", "functions", "definitions", "actors", "names", "actor_logs",
                                     "actor_ends", "nodes", "jobs", "events", "errors", "kv", "objects",
                                     "task_records"};
static_assert(std::size(kNames) == static_cast<size_t>(Table::kCount));

const char* table_name(Table t) { return kNames[static_cast<size_t>(t)]; }

bool table_of(std::string_view name, Table* out) {
  for (size_t k = 1; k < std::size(kNames); ++k)
    if (name == kNames[k]) {
      *out = static_cast<Table>(k);
      return true;
    }
  return false;
}

std::string kv_key(std::string_view ns, std::string_view key) {
  std::string s(ns);
  s.push_back('\0');
  s.append(key);
  return s;
}

uint32_t slot_of_function(uint64_t key) { return gcs_slot_of_key(&key, sizeof key); }

uint32_t slot_of_kv(std::string_view ns, std::string_view key) {
  std::string s = kv_key(ns, key);
  return gcs_slot_of_key(s.data(), s.size());
}

static void ask_name(Client* client, uint32_t op, const std::string& ns, const std::string& name,
                     const ActorId& actor, Client::Answered done) {
  std::string args;
  wire::Writer(&args).array(3).str(ns).str(name).id(actor);
  client->call(client->shard_of_slot(slot_of_kv(ns, name)), op, std::move(args), std::move(done));
}

void claim_name(Client* client, const std::string& ns, const std::string& name, const ActorId& actor,
                Client::Answered done) {
  ask_name(client, kNameClaim, ns, name, actor, std::move(done));
}

void release_name(Client* client, const std::string& ns, const std::string& name, const ActorId& actor,
                  Client::Answered done) {
  ask_name(client, kNameRelease, ns, name, actor, std::move(done));
}

void register_actor(Client* client, const ActorSpec& a, Client::Answered done) {
  std::string args;
  wire::Writer w(&args);
  w.array(2).id(a.actor).map(11);
  w.str("name").str(a.name).str("ns").str(a.ns).str("class").str(a.class_name);
  w.str("function").uint64(a.function).str("job").hex(a.job).str("node").hex(a.node);
  w.str("language").int64(a.language).str("max_restarts").int64(a.max_restarts);
  w.str("lifetime").int64(a.lifetime).str("metadata").bin(a.metadata).str("named").boolean(!a.name.empty());
  client->call(client->shard_of_slot(gcs_slot(a.actor)), kActorRegister, std::move(args), std::move(done));
}

void update_actor(Client* client, const ActorChange& c, Client::Answered done) {
  std::string args;
  wire::Writer w(&args);
  w.array(3).id(c.actor).uint64(c.incarnation).map(6);
  w.str("state").str(c.state).str("node").hex(c.node).str("pid").uint64(c.pid).str("worker").uint64(c.worker);
  w.str("code").int64(c.code).str("cause").str(c.cause);
  client->call(client->shard_of_slot(gcs_slot(c.actor)), kActorUpdate, std::move(args), std::move(done));
}

namespace {

// Answers of all shards, joined when the last is there.
struct Gather {
  std::mutex mutex;
  uint32_t left = 0;
  Status status;
  std::string elements;
  uint64_t n = 0;
  bool wrapped = false;  // each answer is [[element...]], else [element...]
  Client::Answered done;

  void add(Status s, std::string_view answer) {
    std::unique_lock lock(mutex);
    if (s.ok()) {
      wire::Cursor r(answer);
      if (wrapped) r.array_of(1);
      n += r.array();
      elements.append(r.rest());
      if (!r.ok()) s = error(RAY_INTERNAL, "a gcs shard's answer is malformed");
    }
    if (!s.ok()) status = std::move(s);
    if (--left > 0) return;
    lock.unlock();
    std::string all;
    if (status.ok()) wire::Writer(&all).array(n).raw(elements);
    done(std::move(status), std::move(all));
  }
};

void ask(Client* client, uint32_t shards, uint32_t op, const std::string& args, bool wrapped,
         Client::Answered done) {
  auto g = std::make_shared<Gather>();
  g->left = shards;
  g->wrapped = wrapped;
  g->done = std::move(done);
  for (uint32_t k = 0; k < shards; ++k)
    client->call(k, op, args, [g](Status s, std::string answer) { g->add(std::move(s), answer); });
}

}  // namespace

void query_all(Client* client, std::string_view what, std::string_view filter, Client::Answered done) {
  std::string args;
  wire::Writer w(&args);
  w.array(2).str(what);
  if (filter.empty()) w.nil();
  else w.raw(filter);
  // Every shard keeps these few rows, so that its file can be read alone: one answer is the whole.
  uint32_t shards = what == "nodes" || what == "jobs" ? 1 : client->shards();
  ask(client, shards, kQuery, args, false, std::move(done));
}

void kv_list_all(Client* client, std::string_view ns, std::string_view prefix, Client::Answered done) {
  std::string args;
  wire::Writer(&args).array(2).str(ns).bin(prefix);
  ask(client, client->shards(), kKvList, args, true, std::move(done));
}

}  // namespace ray::gcs
