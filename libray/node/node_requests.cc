// See node.h. Requests of the processes: decoded for the core, forwarded to the control store, queries answered.
#include <algorithm>
#include <cstring>

#include "gcs/ops.h"
#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/wire/cursor.h"
#include "libray/wire/limits.h"
#include "libray/node/node.h"
#include "libray/wire/records.h"

namespace ray::node {
namespace {

using wire::kMaxRequest;
constexpr size_t kLargeAnswer = 1u << 20;
constexpr size_t kMaxAnswers = 256u << 20;  // that one process has not read, before it gets no further large one
constexpr int64_t kMaxFragments = 64;  // unfinished requests of one process

}  // namespace

Status Node::up_request(Process* p, uint16_t flags, const std::string& payload) {
  wire::UpRequest u;
  if (!wire::read_head(payload, &u)) return error(RAY_INVALID_ARGUMENT, "it wrote a malformed request");
  bool more = (flags & wire::kMore) != 0;
  auto it = p->fragments.find(u.req_id);
  if (!more && it == p->fragments.end()) {
    handle_request(p->index, u.req_id, u.op, payload.substr(sizeof u));
    return Status();
  }
  if (it == p->fragments.end()) {
    if (p->fragments.size() >= kMaxFragments)
      return error(RAY_INVALID_ARGUMENT, "it began more than %d requests without an end",
                   static_cast<int>(kMaxFragments));
    it = p->fragments.emplace(u.req_id, Request{u.op, ""}).first;
  }
  size_t n = payload.size() - sizeof u;
  if (p->fragment_bytes + n > kMaxRequest)
    return error(RAY_INVALID_ARGUMENT, "its requests take more than %zu bytes", kMaxRequest);
  it->second.body.append(payload, sizeof u, n);
  p->fragment_bytes += n;
  if (more) return Status();
  Request r = std::move(it->second);
  p->fragment_bytes -= r.body.size();
  p->fragments.erase(it);
  handle_request(p->index, u.req_id, r.op, r.body);
  return Status();
}

// An answer may be larger than what a process may leave unread: it asked for it.
void Node::reply(uint32_t index, uint64_t req_id, int32_t code, const std::string& body) {
  Process* p = process(index);
  if (!p || p->closing) return;
  if (body.size() > kLargeAnswer && p->out.answers() > 0 && p->out.answers() + body.size() > kMaxAnswers)
    return reply(index, req_id, RAY_UNAVAILABLE, "this process has not read the answers to its last requests: ask again");
  wire::DnReply r{req_id, code, 0};
  size_t at = 0;
  do {
    size_t n = std::min<size_t>(body.size() - at, wire::kFragmentMax);
    bool more = at + n < body.size();
    p->out.add_answer(wire::kDnReply, &r, sizeof r, body.data() + at, n, more ? wire::kMore : 0);
    at += n;
  } while (at < body.size());
  dirty_.insert(index);
  if (p->out.answers() > 2 * kMaxAnswers) cut_off(p, "it does not read the answers to its requests");
}

// Asks a shard and hands its answer on as it is.
void Node::forward(uint32_t index, uint64_t req_id, uint32_t shard, uint32_t op, std::string args) {
  gcs_->call(shard, op, std::move(args),
             [this, box = mailbox_, index, req_id](Status s, std::string answer) {
               box->post([this, index, req_id, s, answer] {
                 reply(index, req_id, s.code(), s.ok() ? answer : s.message());
               });
             });
}

void Node::handle_request(uint32_t index, uint64_t req_id, uint32_t op, const std::string& body) {
  wire::Cursor r(body);
  uint32_t n = r.array();
  auto bad = [&](const char* what) {
    reply(index, req_id, RAY_INVALID_ARGUMENT, std::string("malformed request: ") + what);
  };
  if (!r.ok()) return bad("not an array");
  switch (op) {
    case wire::kOpFunctionDefine: return function_define(index, req_id, body);
    case wire::kOpKvGet:
    case wire::kOpKvPut:
    case wire::kOpKvDelete: {
      std::string ns = r.text(), key = r.text();
      if (!r.ok()) return bad("kv");
      uint32_t to = op == wire::kOpKvGet   ? gcs::kKvGet
                    : op == wire::kOpKvPut ? gcs::kKvPut
                                           : gcs::kKvDelete;
      return forward(index, req_id, gcs_->shard_of_slot(gcs::slot_of_kv(ns, key)), to, body);
    }
    case wire::kOpKvList: {
      std::string ns = r.text(), prefix = r.text();
      if (!r.ok() || n != 2) return bad("kv list");
      gcs::kv_list_all(gcs_.get(), ns, prefix,
                       [this, box = mailbox_, index, req_id](Status s, std::string answer) {
                         box->post([this, index, req_id, s, answer] {
                           wire::Packer w;
                           w.array(1).raw(answer);
                           reply(index, req_id, s.code(), s.ok() ? w.bytes() : s.message());
                         });
                       });
      return;
    }
    case wire::kOpQuery: return query(index, req_id, body);
    case wire::kOpGroupCreate: return group_create(index, req_id, body);
    case wire::kOpWorkerCommand: return set_worker_command(index, req_id, body);
    case wire::kOpWorkerCheck: return check_worker_command(index, req_id, body);
    case wire::kOpShutdown: {
      Process* p = process(index);
      if (!p || !p->driver || p->pid != options_.parent_pid)
        return reply(index, req_id, RAY_WRONG_STATE,
                     "only the driver that started the node may end it");
      shutdown_replies_.emplace_back(index, req_id);
      return begin_shutdown("the driver asked for it");
    }
    default:
      if (!simple_request(index, req_id, op, body))
        reply(index, req_id, RAY_UNSUPPORTED, "unknown operation " + std::to_string(op));
  }
}

// ---- for the core

void Node::function_define(uint32_t index, uint64_t req_id, const std::string& body) {
  wire::Cursor r(body);
  uint32_t n = r.array();
  uint64_t key = r.uint64();
  {
    wire::Cursor tail = r;
    for (uint32_t i = 1; i < n; ++i) tail.skip();
    if (n != 5 || !tail.done())
      return reply(index, req_id, RAY_INVALID_ARGUMENT, "malformed function definition");
  }
  wire::Packer value;  // [language, kind, name, definition]
  value.array(4);
  for (int i = 0; i < 4; ++i) value.raw(r.value());
  step(event::FunctionDefine{index, req_id, key, value.bytes(), body});
}

void Node::group_create(uint32_t index, uint64_t req_id, const std::string& body) {
  wire::Cursor r(body);
  uint32_t n = r.array();
  event::GroupCreate g{index, req_id, random_id(), std::string(r.value()), 0, 0, "", ""};
  g.strategy = static_cast<int32_t>(r.int64());
  g.lifetime = static_cast<int32_t>(r.int64());
  g.name = r.text();
  g.ns = r.text();
  if (n != 5 || !r.done()) return reply(index, req_id, RAY_INVALID_ARGUMENT, "malformed placement group");
  step(std::move(g));
}

// Those that name one thing. False: there is no such operation.
bool Node::simple_request(uint32_t index, uint64_t req_id, uint32_t op, const std::string& body) {
  wire::Cursor r(body);
  const uint32_t n = r.array();
  auto complete = [&](uint32_t fields, const char* what) {
    if (n == fields && r.done()) return true;
    reply(index, req_id, RAY_INVALID_ARGUMENT, std::string("malformed ") + what);
    return false;
  };
  switch (op) {
    case wire::kOpPing: return step(event::Ping{index, req_id}), true;
    case wire::kOpFunctionGet: {
      event::FunctionGet e{index, req_id, r.uint64()};
      if (complete(1, "function key")) step(std::move(e));
      return true;
    }
    case wire::kOpActorFind: {
      event::ActorFind e{index, req_id, r.text(), ""};
      e.ns = r.text();
      if (complete(2, "actor name")) step(std::move(e));
      return true;
    }
    case wire::kOpActorInfo: {
      event::ActorInfo e{index, req_id, r.id()};
      if (complete(1, "actor id")) step(std::move(e));
      return true;
    }
    case wire::kOpGroupWait: {
      event::GroupWait e{index, req_id, r.id(), false};
      e.wait = r.uint64() != 0;
      if (complete(2, "placement group")) step(std::move(e));
      return true;
    }
    case wire::kOpGroupRemove: {
      event::GroupRemove e{index, req_id, r.id()};
      if (complete(1, "placement group")) step(std::move(e));
      return true;
    }
    default: return false;
  }
}

// ---- queries
// ---------------------------------------------------------------------------------------

// Tasks that run now, as their processes say.
std::string Node::running_msgpack() {
  std::string rows;
  uint32_t n = 0;
  wire::Writer w(&rows);
  for (uint32_t index : live_) {
    const Process& p = *processes_[index];
    if (!p.channel) continue;
    const auto& channel = *reinterpret_cast<const wire::ChannelHeader*>(p.channel->map.data());
    for (uint32_t slot = 0; slot < wire::kRunningSlots; ++slot) {
      wire::RunningTask running;
      if (!wire::read_running(channel, slot, &running)) continue;
      w.map(5).str("task").id(running.task).str("attempt").uint64(running.attempt);
      w.str("start_ns").int64(running.start_ns).str("worker").uint64(index).str("pid").int64(p.pid);
      ++n;
    }
  }
  std::string out;
  wire::Writer(&out).array(n).raw(rows);
  return out;
}

// How much the daemon remembers; docs/node.md says what bounds each.
std::string Node::tables_msgpack() const {
  std::vector<std::pair<const char*, uint64_t>> rows = core_.sizes();
  rows.push_back({"zygotes", zygotes_.size()});
  wire::Packer w;
  w.map(static_cast<uint32_t>(rows.size()));
  for (const auto& [name, n] : rows) w.str(name).uint64(n);
  return w.bytes();
}

bool Node::runs_something(const Process& p) const {
  const auto& channel = *reinterpret_cast<const wire::ChannelHeader*>(p.channel->map.data());
  for (uint32_t slot = 0; slot < wire::kRunningSlots; ++slot)
    if (channel.running[slot].generation.load(std::memory_order_acquire) % 2) return true;
  return false;
}

// A client keeps a lease for a moment after its last task: what it holds is available all the same.
std::vector<uint32_t> Node::unused_leases() const {
  std::vector<uint32_t> out;
  for (uint32_t index : live_) {
    const Process& p = *processes_[index];
    if (!p.driver && p.channel && !runs_something(p)) out.push_back(index);
  }
  return out;
}

std::string Node::query_local(const std::string& what) {
  wire::Packer w;
  if (what == "resources" || what == "available") {
    auto amounts = what == "resources" ? core_.scheduler().total() : core_.scheduler().available(unused_leases());
    w.map(static_cast<uint32_t>(amounts.size()));
    for (const auto& [name, amount] : amounts) w.str(name).float64(amount);
  } else if (what == "tables") {
    w.raw(tables_msgpack());
  } else if (what == "directory") {  // of shared objects: for people who look for a leak
    const std::vector<std::string> lines = core_.directory().describe(10000);
    w.array(static_cast<uint32_t>(lines.size()));
    for (const std::string& line : lines) w.str(line);
  } else if (what == "running") {
    w.raw(running_msgpack());
  } else if (what == "journal") {  // what the pump has sent to the shards so far
    JournalPump::Stats s = pump_->stats();
    w.map(6).str("records").uint64(s.records).str("bytes").uint64(s.bytes);
    w.str("batches").uint64(s.batches).str("stash").uint64(s.stash);
    w.str("dropped").uint64(s.dropped).str("spooled").uint64(s.spooled);
  } else if (what == "store") {
    w.raw(store_ ? store_->list_msgpack(10000) : wire::empty_array());
  } else if (what == "workers") {
    w.array(static_cast<uint32_t>(live_.size()));
    for (uint32_t index : live_) {
      const Process& p = *processes_[index];
      const actor::Actor* a = core_.actors().of_worker(index);
      w.map(9);
      w.str("node").str(core_.node_of(index));  // of a stand-in: where what it runs runs
      w.str("worker").uint64(index);
      auto held = core_.scheduler().held(index);
      w.str("resources").map(static_cast<uint32_t>(held.size()));
      for (auto& [name, amount] : held) w.str(name).float64(amount);
      w.str("pid").int64(p.pid);
      w.str("kind").str(p.driver ? "driver" : "worker");
      w.str("state").str(p.driver ? "running" : core_.scheduler().worker_state(index));
      w.str("language").int64(p.language);
      w.str("job").str(job_of(p).id.hex());
      w.str("actor").str(a ? a->spec.id.hex() : "");
    }
  } else {
    return "";
  }
  return w.bytes();
}

void Node::query(uint32_t index, uint64_t req_id, const std::string& body) {
  wire::Cursor r(body);
  uint32_t n = r.array();
  std::string what = r.text();
  std::string filter = n > 1 ? std::string(r.value()) : std::string("\x80", 1);
  if (!r.ok()) return reply(index, req_id, RAY_INVALID_ARGUMENT, "malformed query");
  if (filter == std::string("\xc0", 1) || filter == std::string("\xc4\0", 2)) filter = "\x80";
  if (cluster_ && query_cluster(index, req_id, what, filter)) return;
  std::string rows = what == "groups" ? core_.groups_msgpack(index) : query_local(what);
  if (!rows.empty()) {
    wire::Packer w;
    w.array(1).raw(rows);
    return reply(index, req_id, RAY_OK, w.bytes());
  }
  // What was submitted before the question is part of the answer: the journal is flushed first.
  pump_->flush([this, box = mailbox_, index, req_id, what, filter] {
    box->post([this, box, index, req_id, what, filter] {
      if (!gcs_) return reply(index, req_id, RAY_UNAVAILABLE, "the node is ending");
      auto answered = [this, box, index, req_id](Status s, std::string answer) {
        box->post([this, index, req_id, s, answer] {
          wire::Packer w;
          w.array(1).raw(answer);
          reply(index, req_id, s.code(), s.ok() ? w.bytes() : s.message());
        });
      };
      if (what == "nodes" || what == "jobs") {  // every shard has them all
        wire::Packer w;
        w.array(2).str(what).raw(filter);
        gcs_->call(0, gcs::kQuery, w.bytes(), answered);
      } else {
        gcs::query_all(gcs_.get(), what, filter, answered);
      }
    });
  });
}

}  // namespace ray::node
