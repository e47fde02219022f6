// See node.h. Carrying out what the core decided: one function for each kind of action (core/action.h). What fails, and what
// others answer, is told to the core as an event. The actions about other nodes are in node_foreign.cc.
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstring>

#include "gcs/ops.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/lineage/record.h"
#include "libray/node/node.h"
#include "libray/wire/cursor.h"

namespace ray::node {

void Node::carry_out(Actions* actions) {
  for (Action& a : *actions) std::visit([this](auto& x) { carry_out(x); }, a);
  actions->clear();
}

// ---- datagrams

void Node::carry_out(const action::Welcome& a) {
  Process* p = process(a.process);
  p->job = a.job;
  if (p->driver) jobs_[a.job].ns = a.ns;
  wire::Welcome w{};
  w.magic = wire::kMagic;
  w.version = wire::kProtocolVersion;
  w.code = RAY_OK;
  w.process = a.process;
  w.node = id_;
  w.job = a.id;
  w.root = a.root;
  w.daemon_pid = ::getpid();
  w.size = static_cast<uint32_t>(a.ns.size());
  std::string datagram(reinterpret_cast<const char*>(&w), sizeof w);
  datagram += a.ns;
  int fds[3] = {page_fd_.get(), p->channel->memfd.get(), doorbell_.get()};
  Status s = send_with_fds(p->socket.get(), datagram.data(), datagram.size(), fds, 3);
  if (!s.ok()) cut_off(p, "it could not be welcomed: " + s.message());
}

void Node::carry_out(const action::Grant& a) {
  if (a.new_link && !make_link(a.client, a.lease.worker, a.lease.link, a.lease.lease)) return;
  RAY_FAULT("node.grant");
  send(process(a.client), wire::kDnLeaseGrant, &a.lease, sizeof a.lease, a.units.data(), a.units.size() * sizeof(uint32_t));
}

// A fresh memfd is all zero: only the first words have to be written, so it is not mapped here.
bool Node::make_link(uint32_t client, uint32_t worker, uint32_t link, uint32_t lease) {
  Process *c = process(client), *w = process(worker);
  if (!c || !w) return false;
  auto memfd = create_memfd("ray-link", wire::kLinkBytes);
  uint32_t words[4] = {wire::kMagic, wire::kProtocolVersion, client, worker};
  std::string why;
  if (!memfd.ok()) why = memfd.status().message();
  else if (RAY_FAULT_FAILS("node.link") || ::pwrite(memfd->get(), words, sizeof words, 0) != sizeof words)
    why = "there is no memory for the link";
  if (!why.empty()) {
    lost_links_.insert(link);
    step(event::LinkFailed{client, worker, lease, why});
    return false;
  }
  auto fd = std::make_shared<Fd>(std::move(*memfd));
  wire::DnLink to_client{link, worker, 0, static_cast<uint32_t>(w->pid)};
  wire::DnLink to_worker{link, client, 1, static_cast<uint32_t>(c->pid)};
  send(w, wire::kDnLink, &to_worker, sizeof to_worker, nullptr, 0, 0, fd);
  send(c, wire::kDnLink, &to_client, sizeof to_client, nullptr, 0, 0, fd);
  return true;
}

void Node::carry_out(const action::Reclaim& a) {
  send(process(a.client), wire::kDnLeaseReclaim, &a.lease, sizeof a.lease);
}

void Node::carry_out(const action::Infeasible& a) {
  wire::DnLease lease{a.shape, 0, 0, 0};
  send(process(a.client), wire::kDnInfeasible, &lease, sizeof lease, a.text.data(), a.text.size());
}

void Node::carry_out(const action::Unplaceable& a) {
  wire::DnUnplaceable u{a.shape, a.code};
  send(process(a.client), wire::kDnUnplaceable, &u, sizeof u, a.text.data(), a.text.size());
}

void Node::carry_out(const action::Exit& a) { send(process(a.process), wire::kDnExit, nullptr, 0); }

void Node::carry_out(const action::PeerDied& a) {
  send(process(a.process), wire::kDnPeerDied, &a.died, sizeof a.died, a.why.data(), a.why.size());
}

void Node::carry_out(const action::TellObject& a) {
  send(process(a.process), wire::kDnObjState, &a.state, sizeof a.state);
}

void Node::carry_out(const action::AskToCancel& a) {
  send(process(a.process), wire::kDnObjCancel, &a.cancel, sizeof a.cancel);
}

void Node::carry_out(const action::InitActor& a) {
  RAY_FAULT("node.actor.init");
  send(process(a.process), wire::kDnActorInit, &a.init, sizeof a.init, a.record.data(), a.record.size());
}

// A long cause goes in parts, the last of them with the state.
void Node::carry_out(const action::TellActor& a) {
  wire::DnActorState s = a.state;
  if (a.new_link && !make_link(a.process, s.worker, s.link, 0)) return;
  if (s.link && lost_links_.count(s.link)) return;  // told again when that can be made
  Process* p = process(a.process);
  size_t at = 0;
  for (; a.cause.size() - at > wire::kErrorPart; at += wire::kErrorPart)
    send(p, wire::kDnActorText, s.id.b, kIdSize, a.cause.data() + at, wire::kErrorPart);
  s.size = static_cast<uint32_t>(a.cause.size() - at);
  send(p, wire::kDnActorState, &s, sizeof s, a.cause.data() + at, s.size);
}

void Node::carry_out(const action::ActorWanted& a) {
  wire::DnActorState s{};
  s.id = a.id;
  send(process(a.process), wire::kDnActorWanted, &s, sizeof s);
}

void Node::carry_out(const action::Notice& a) {
  send(process(a.process), wire::kDnNotice, nullptr, 0, a.text.data(), a.text.size());
}

void Node::carry_out(const action::Reply& a) { reply(a.process, a.req_id, a.code, a.body); }

// ---- processes

void Node::carry_out(const action::CutOff& a) {
  if (Process* p = process(a.process)) cut_off(p, a.why);
}

// Whoever slept on a word that the dead process was about to wake is woken, and looks.
void Node::carry_out(const action::Buried& a) {
  Process* p = process(a.process);
  if (!p) return;
  live_.erase(a.process);
  dirty_.erase(a.process);
  broken_.erase(a.process);  // its index is another one's soon
  std::erase(gone_later_, a.process);
  if (pump_) pump_->detach(a.process);
  flush_outboxes();
  for (uint32_t peer : a.peers) wake_process(peer);
  if (page_) {
    page_->bells[a.process].alive.store(0);
    if (uint32_t sleeper = page_->bells[a.process].waking.load()) wake_process(sleeper);
  }
  if (p->socket.valid()) unwatch(p->socket.get());
  if (p->pidfd.valid()) unwatch(p->pidfd.get());
  processes_[a.process].reset();
  free_indexes_.push_back(a.process);
}

void Node::carry_out(const action::StartWorker& a) {
  Spawn& s = spawns_[a.spawn];
  s.number = a.spawn;
  s.pool = a.pool;
  Status status = start_worker(&s);
  if (status.ok()) return;
  logs_.ended(a.spawn);
  spawns_.erase(a.spawn);
  step(event::SpawnFailed{a.spawn, status.message()});
}

void Node::carry_out(const action::KillSpawn& a) {
  if (auto s = spawns_.find(a.spawn); s != spawns_.end()) (void)pidfd_signal(s->second.pidfd.get(), SIGKILL);
}

void Node::carry_out(const action::GiveUp& a) {
  auto s = spawns_.find(a.spawn);
  if (s == spawns_.end()) return;
  if (s->second.exited || s->second.pid <= 0) return bury(a.spawn);
  (void)pidfd_signal(s->second.pidfd.get(), SIGKILL);
}

void Node::carry_out(const action::EndZygotes& a) {
  auto job = jobs_.find(a.job);
  if (job == jobs_.end()) return;
  job->second.env.clear();
  for (auto& [language, z] : job->second.zygotes) (void)pidfd_signal(z->pidfd(), SIGKILL);
}

void Node::carry_out(const action::JobEnded& a) {
  if (auto job = jobs_.find(a.job); job != jobs_.end()) register_job(job->second, "FINISHED");
}

void Node::carry_out(const action::ForgetJob& a) { jobs_.erase(a.job); }

// ---- the store

void Node::carry_out(const action::FreeObject& a) {
  RAY_FAULT("node.object.free");
  if (store_) store_->drop(a.id, a.location);
}

void Node::carry_out(const action::KeepObject& a) {
  if (store_) store_->keep(a.id, a.location);
}

void Node::carry_out(const action::DiscardObject& a) {
  if (store_) store_->discard(a.id, a.holder, a.attempt);
}

void Node::carry_out(const action::ForgetHolder& a) {
  RAY_FAULT("node.bury.told");  // peers are told, its references not dropped
  if (store_) store_->process_died(a.process);
}

// ---- the control store; without one the node is closing, and names end with it

void Node::carry_out(const action::ClaimName& a) {
  if (!gcs_) return;
  gcs::claim_name(gcs_.get(), a.ns, a.name, a.id, [this, box = mailbox_, id = a.id](Status s, std::string answer) {
    box->post([this, id, s, answer] {
      event::NameClaimed e{id, s.code(), id, s.message()};
      wire::Cursor r(answer);
      if (e.code == RAY_ALREADY_EXISTS && r.array() == 1 && r.id(&e.winner)) e.code = RAY_OK;
      step(std::move(e));
    });
  });
}

void Node::carry_out(const action::ReleaseName& a) {
  if (!gcs_) return;
  gcs::release_name(gcs_.get(), a.ns, a.name, a.id, [this, box = mailbox_, ns = a.ns, name = a.name](Status s, std::string) {
    if (!s.ok()) log(kLogWarning, "node", "name-release", "%s", s.message().c_str());
    box->post([this, ns, name] { step(event::NameReleased{ns, name}); });
  });
}

void Node::carry_out(const action::WriteRow& a) {
  if (!gcs_) return;
  const action::ActorRow& row = *a.row;
  auto written = [this, box = mailbox_, id = row.id](Status s, std::string) {
    if (!s.ok()) log(kLogWarning, "node", "actor-row", "%s", s.message().c_str());
    box->post([this, id] { step(event::RowWritten{id}); });
  };
  if (row.change) {
    gcs::ActorChange change;
    change.actor = row.id;
    change.incarnation = row.incarnation;
    change.state = row.state;
    change.node = id_;
    change.pid = row.pid;
    change.worker = row.worker;
    change.code = row.code;
    change.cause = row.cause;
    return gcs::update_actor(gcs_.get(), change, written);
  }
  gcs::ActorSpec spec;
  spec.actor = row.id;
  spec.ns = row.ns;
  spec.name = row.name;
  spec.class_name = row.klass;
  spec.metadata = row.metadata;
  spec.function = row.function;
  spec.job = row.job;
  spec.node = id_;
  spec.language = row.language;
  spec.max_restarts = row.max_restarts;
  spec.lifetime = row.lifetime;
  gcs::register_actor(gcs_.get(), spec, written);
}

void Node::carry_out(const action::StoreFunction& a) {
  if (!gcs_) return;
  gcs_->call(gcs_->shard_of_slot(gcs::slot_of_function(a.key)), gcs::kFunctionDefine, a.body,
             [this, box = mailbox_, key = a.key, index = a.process, req_id = a.req_id](Status s, std::string answer) {
               if (!s.ok()) log(kLogWarning, "node", "function-row", "%s", s.message().c_str());
               box->post([this, key, index, req_id, s, answer] {
                 step(event::FunctionStored{key, index, req_id, s.code(), s.ok() ? answer : s.message()});
               });
             });
}

void Node::carry_out(const action::ForgetFunction& a) {
  if (!gcs_) return;
  wire::Packer w;
  w.array(1).uint64(a.key);
  gcs_->call(gcs_->shard_of_slot(gcs::slot_of_function(a.key)), gcs::kFunctionForget, w.bytes(),
             [this, box = mailbox_, key = a.key](Status s, std::string) {
               if (!s.ok()) log(kLogWarning, "node", "function-row", "%s", s.message().c_str());
               box->post([this, key] { step(event::FunctionForgotten{key}); });
             });
}

void Node::carry_out(const action::AskFunction& a) {
  if (!gcs_) return;
  wire::Packer w;
  w.array(1).uint64(a.key);
  forward(a.process, a.req_id, gcs_->shard_of_slot(gcs::slot_of_function(a.key)), gcs::kFunctionGet, w.bytes());
}

// ---- people

void Node::carry_out(const action::Report& a) { report(a.type, a.process, a.fields); }

void Node::carry_out(const action::Log& a) { log(a.level, "node", a.kind, "%s", a.text.c_str()); }

// An event or error for the journal: a map of strings.
void Node::report(uint16_t type, uint32_t process, const std::map<std::string, std::string>& fields) {
  wire::Packer w;
  w.map(static_cast<uint32_t>(fields.size()));
  for (const auto& [key, value] : fields) w.str(key).str(value);
  if (pump_) pump_->add(type, process, w.bytes());
}

}  // namespace ray::node
