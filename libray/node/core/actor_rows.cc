// See node_core.h. What the control store is asked and told about actors: names and rows.
#include "libray/lineage/record.h"
#include "libray/node/core/node_core.h"
#include "libray/wire/packed.h"

namespace ray::node {
namespace {

const char* state_name(uint32_t state) {
  switch (state) {
    case wire::kActorPending: return "PENDING";
    case wire::kActorAlive: return "ALIVE";
    case wire::kActorRestarting: return "RESTARTING";
    default: return "DEAD";
  }
}

}  // namespace

// ---- names

// After all rings were read. While its last owner's farewell is on the way, it waits for that.
void NodeCore::claim_name(const ActorId& id) {
  const actor::Actor* a = actors_.find(id);
  if (a && names_.claim(id, a->spec.ns, a->spec.name)) put(action::ClaimName{id, a->spec.ns, a->spec.name});
}

void NodeCore::on(const event::NameClaimed& e) {
  actor::Actions actions;
  actors_.name_claimed(e.id, e.code, e.winner, e.text, &actions);
  apply(actions);
}

void NodeCore::release_name(const actor::Actor& a) {
  names_.release(a.spec.ns, a.spec.name);
  put(action::ReleaseName{a.spec.id, a.spec.ns, a.spec.name});
}

void NodeCore::on(const event::NameReleased& e) {
  for (const ActorId& next : names_.released(e.ns, e.name)) claim_name(next);
}

// ---- rows

void NodeCore::journal_actor(const ActorId& id) {
  const actor::Actor* a = actors_.find(id);
  if (!a) return;
  const Process* w = process(a->worker);
  auto row = std::make_shared<action::ActorRow>();
  row->id = id;
  row->state = state_name(a->state);
  report(lineage::kEvent, w ? w->index : 0, {{"kind", "actor"}, {"actor", id.hex()}, {"state", row->state}});
  row->change = a->state != wire::kActorPending;
  if (row->change) {
    row->incarnation = a->incarnation;
    row->pid = w ? static_cast<uint32_t>(w->pid) : 0;
    row->worker = w ? w->index : 0;
    row->code = a->code;
    ray_code code;
    uint32_t format;
    std::string message, rest;
    const bool packed = wire::unpack_error(a->cause.data(), a->cause.size(), &code, &message, &format, &rest);
    row->cause = packed ? message : a->cause;
  } else {
    row->ns = a->spec.ns;
    row->name = a->spec.name;
    row->klass = a->spec.klass;
    row->metadata = a->spec.metadata;
    row->function = a->spec.function;
    if (auto job = jobs_.find(a->spec.job); job != jobs_.end()) row->job = job->second.id;
    row->language = a->spec.language;
    row->max_restarts = a->spec.max_restarts;
    row->lifetime = a->spec.lifetime;
  }
  if (rows_.add(row)) put(action::WriteRow{std::move(row)});
}

void NodeCore::on(const event::RowWritten& e) {
  if (auto next = rows_.written(e.id)) put(action::WriteRow{std::move(next)});
}

}  // namespace ray::node
