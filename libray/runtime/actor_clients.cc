// See actor_clients.h.
#include "libray/runtime/actor_clients.h"

#include <algorithm>
#include <utility>

namespace ray {

// Makes it on first sight.
Actor* ActorClients::entry(const ActorId& id) {
  auto& slot = table_[id];
  if (!slot) {
    slot = std::make_unique<Actor>();
    slot->runtime = runtime_;
    slot->id = id;
    slot->call_function = std::make_unique<Function>();
    slot->call_function->runtime = runtime_;
    slot->call_function->name = "actor";
    slot->call_function->language = language_;
  }
  return slot.get();
}

bool ActorClients::none_lives_by_us() const {
  return std::none_of(table_.begin(), table_.end(), [](const auto& a) {
    return a.second->made_here && a.second->handles > 0 && a.second->state != wire::kActorDead;
  });
}

Actor* ActorClients::made_here(Object* ref, const Function* klass, const ray_actor_options& o, const std::string& metadata) {
  objects_.share_new(ref);
  Actor* a = entry(ref->id);
  a->ref = retain(ref);
  a->handles = 1;
  a->class_name = a->call_function->name = klass->name;
  a->call_function->key = klass->key;
  a->call_function->language = klass->language.load();
  a->max_task_retries = o.max_task_retries == RAY_RETRIES_DEFAULT ? 0 : o.max_task_retries;
  a->max_pending = o.max_pending_calls;
  a->out_of_order = o.flags & RAY_ACTOR_OUT_OF_ORDER;
  a->metadata = metadata;
  a->info_known = true;
  a->facts_known.store(true, std::memory_order_release);
  a->creating = a->made_here = true;
  return a;
}

void ActorClients::connect(Actor* a) {
  if (std::exchange(a->connected, true)) return;
  daemon_.up(wire::kUpActorConnect, wire::UpActor{a->id, 0, RAY_OK, 0, 0});
}

Actor* ActorClients::counted(Object* o) {
  Actor* a = entry(o->id);
  if (!a->ref) a->ref = retain(o);
  ++a->handles;
  connect(a);
  return a;
}

Actor* ActorClients::weak(const ActorId& id) {
  Actor* a = entry(id);
  ++a->weak;
  connect(a);
  return a;
}

// So that it is there when we hear of it: a weak handle has no hold, but we are told of its end.
Actor* ActorClients::adopt(const ActorId& id) {
  Actor* a = weak(id);
  objects_.give_up_hold(id);
  return a;
}

Status ActorClients::reference(Actor* a, Object** out) {
  if (!a->ref) return objects_.import_one(a->id, {}, nullptr, out);
  *out = retain(a->ref);
  return Status();
}

void ActorClients::release(Actor* a, bool weak) {
  weak ? --a->weak : --a->handles;
  maybe_done(a);
}

void ActorClients::keep_for_call(PendingTask* t) {
  if (t->keeps_actor || t->kind != RAY_KIND_ACTOR_CALL) return;
  Actor* a = t->actor;  // from now on the directory counts us, unless it does already
  if (!a->ref && !objects_.import_one(a->id, {}, nullptr, &a->ref).ok()) return;
  t->keeps_actor = true;
  ++a->n_keeping;
}

void ActorClients::maybe_done(Actor* a) {
  if (a->handles || a->n_keeping || a->creating) return;
  if (a->ref) objects_.release_later(std::exchange(a->ref, nullptr));
  if (a->weak || a->n_pending) return;
  if (a->link) {
    if (!a->link->inflight.empty()) return;
    a->link->actor = nullptr;
  }
  if (a->death) a->death->release();
  table_.erase(ActorId(a->id));  // frees it
}

// ---- what the daemon is told and tells

void ActorClients::announce(const PendingTask* t) {
  if (std::exchange(t->creation->announced, true)) return;
  Actor* a = t->actor;
  a->connected = true;
  const ray_actor_options& o = t->creation->options;
  const wire::ActorFacts facts{o.max_restarts, a->max_task_retries, o.flags, o.max_pending_calls};
  daemon_.up(wire::kUpActorConnect, wire::UpActor{a->id, 0, RAY_OK, 1, sizeof facts}, &facts, sizeof facts);
}

void ActorClients::tell_creation(const PendingTask* t, const std::vector<ObjectId>& deps) {
  ActorCreation& c = *t->creation;
  wire::UpActorCreate u{};
  u.id = t->actor->id;
  u.req_id = c.req_id;
  u.language = t->function->language;
  u.max_restarts = c.options.max_restarts;
  u.max_task_retries = t->actor->max_task_retries;
  u.lifetime = c.options.lifetime;
  u.max_concurrency = c.options.max_concurrency ? c.options.max_concurrency : 1;
  u.flags = c.options.flags;
  u.function = t->function->key;
  std::string tail;
  auto add = [&](const std::string& part) {
    tail += part;
    return static_cast<uint32_t>(part.size());
  };
  u.name_size = add(c.name);
  u.ns_size = add(c.ns);
  u.class_size = add(t->function->name);
  u.metadata_size = add(c.metadata);
  u.resources_size = add(c.resources);
  u.record_size = add(t->spec);
  u.n_dependencies = static_cast<uint32_t>(deps.size());
  u.max_pending_calls = c.options.max_pending_calls;
  tail.append(reinterpret_cast<const char*>(deps.data()), deps.size() * kIdSize);
  daemon_.up(wire::kUpActorCreate, u, tail.data(), tail.size());
}

void ActorClients::tell_failed(const Actor* a, const ErrorBox* e) {
  std::string image = wire::pack_error(e->code, e->message, e->payload_format, e->payload);
  if (image.size() > wire::kActorErrorMax) image = wire::pack_error(e->code, e->message, 0, {});  // the message must do
  daemon_.up(wire::kUpActorReady, wire::UpActor{a->id, 0, RAY_ACTOR_DIED, 0, static_cast<uint32_t>(image.size())},
             image.data(), image.size());
}

void ActorClients::add_text(const ActorId& id, std::string_view text) {
  if (Actor* a = find(id)) a->error_parts.append(text);
}

void ActorClients::take_facts(Actor* a, const wire::DnActorState& s) {
  if (a->facts_known.load(std::memory_order_relaxed)) return;
  a->max_task_retries = s.max_task_retries;
  a->max_pending = s.max_pending_calls;
  a->out_of_order = s.flags & RAY_ACTOR_OUT_OF_ORDER;
  a->facts_known.store(true, std::memory_order_release);
  for (PendingTask* t = a->queue.head; t; t = t->next)
    if (t->actor_retries && !t->cancelled) t->retries_left = a->max_task_retries;
  if (a->out_of_order) a->free_order();
}

std::string ActorClients::check() const {
  for (auto& [id, a] : table_) {
    if (a->n_keeping > a->n_pending) return "actor " + id.hex() + " is kept by more calls than it has";
    if (a->queue.size + a->aside.size + a->lost.size > a->n_pending)
      return "actor " + id.hex() + " has calls that are not counted";
    if ((a->handles || a->n_keeping) && !a->ref) return "actor " + id.hex() + " is held, and the directory does not know";
    if (std::string own = a->check(); !own.empty()) return own;
    if (a->link && a->link->actor != a.get()) return "actor " + id.hex() + " has a link that is not its own";
  }
  return "";
}

}  // namespace ray
