// See node.h. Up records: decoded, checked, told to the core. Main thread; once per record of every process, so nothing here
// allocates for records that have no list in them.
#include "libray/lineage/record.h"
#include "libray/node/node.h"
#include "libray/wire/cursor.h"
#include "libray/wire/records.h"

namespace ray::node {
namespace {

Status malformed(const char* what) {
  return error(RAY_INVALID_ARGUMENT, "it wrote a malformed %s record", what);
}

}  // namespace

Status Node::handle_up(Process* p, uint16_t type, uint16_t flags, const std::string& payload) {
  if (!gcs_) return Status();  // the node is closing: there is nobody left to serve
  bool lazy = type == wire::kUpObjShare || type == wire::kUpObjHold || type == wire::kUpObjRelease ||
              type == wire::kUpObjResult || type == wire::kUpObjDiscard;
  ++(lazy ? lazy_records_ : urgent_records_);
  switch (type) {
    case wire::kUpObjShare:
    case wire::kUpObjReady:
    case wire::kUpObjHold:
    case wire::kUpObjRelease:
    case wire::kUpObjResult:
    case wire::kUpObjDiscard:
    case wire::kUpFunctionDrop:
    case wire::kUpObjResolve:
    case wire::kUpObjCancel: return up_reference(p, type, payload);
    case wire::kUpRequest: return up_request(p, flags, payload);
    case wire::kUpActorCreate: return up_actor_create(p, payload);
    case wire::kUpActorConnect:
    case wire::kUpActorKill:
    case wire::kUpActorReady:
    case wire::kUpActorExit: return up_actor(p, type, payload);
    case wire::kUpGoodbye: return step(event::Goodbye{p->index}, loop_now_), Status();
    case wire::kUpError: {
      wire::Cursor r(payload);
      r.map();
      if (!r.ok()) return malformed("error");
      pump_->add(lineage::kError, p->index, payload);
      return Status();
    }
    default: return up_lease(p, type, payload);
  }
}

Status Node::up_lease(Process* p, uint16_t type, const std::string& payload) {
  switch (type) {
    case wire::kUpShape: {
      wire::UpShape s;
      std::string_view resources;
      if (!wire::read_head(payload, &s, &resources)) return malformed("shape");
      step(event::Shape{p->index, s.shape, s.language, resources});
      return Status();
    }
    case wire::kUpLeaseWant: {
      wire::UpLeaseWant w;
      if (!wire::read_head(payload, &w)) return malformed("lease");
      step(event::Want{p->index, w.shape, w.want, w.example}, loop_now_);
      return Status();
    }
    case wire::kUpLeaseReturn: {
      wire::UpLeaseReturn l;
      if (!wire::read_head(payload, &l)) return malformed("lease");
      step(event::Return{p->index, l.worker, l.lease});
      return Status();
    }
    case wire::kUpBlocked: {
      wire::UpBlocked b;
      if (!wire::read_head(payload, &b)) return malformed("blocked");
      step(event::Blocked{p->index, b.blocked != 0}, loop_now_);
      return Status();
    }
    case wire::kUpRetire: return step(event::Retire{p->index}), Status();
    case wire::kUpKillWorker: {
      wire::UpLeaseReturn l;
      if (!wire::read_head(payload, &l)) return malformed("kill");
      step(event::KillAsked{p->index, l.worker, l.lease});
      return Status();
    }
    case wire::kUpStopped: return up_stopped(p, payload);
    case wire::kUpLinkLost: {
      wire::UpLinkLost l;
      if (!wire::read_head(payload, &l)) return malformed("link");
      step(event::LinkLost{p->index, l.peer, l.as_worker, l.why});
      return Status();
    }
    default: return error(RAY_INVALID_ARGUMENT, "it wrote a record of unknown type %u", type);
  }
}

Status Node::up_reference(Process* p, uint16_t type, const std::string& payload) {
  switch (type) {
    case wire::kUpObjShare:
    case wire::kUpObjReady: return up_object(p, type, payload);
    case wire::kUpObjHold:
    case wire::kUpObjRelease: {
      wire::UpObjCount c;
      if (!wire::read_head(payload, &c)) return malformed("count");
      if (type == wire::kUpObjRelease) step(event::Release{p->index, c}, loop_now_);
      else step(event::Hold{c}, loop_now_);
      return Status();
    }
    case wire::kUpObjResult: return up_result(payload);
    case wire::kUpFunctionDrop: {
      wire::UpFunctionDrop d;
      if (!wire::read_head(payload, &d)) return malformed("function");
      step(event::FunctionDrop{p->index, d.key, d.count}, loop_now_);
      return Status();
    }
    case wire::kUpObjDiscard: {
      wire::UpObjDiscard d;
      if (!wire::read_head(payload, &d)) return malformed("discarded result");
      step(event::Discarded{d}, loop_now_);
      return Status();
    }
    case wire::kUpObjResolve: {
      ObjectId id;
      if (!wire::read_head(payload, &id)) return malformed("resolve");
      step(event::Resolve{p->index, id}, loop_now_);
      return Status();
    }
    default: {
      wire::ObjCancel c;
      if (!wire::read_head(payload, &c)) return malformed("cancel");
      step(event::CancelTask{c}, loop_now_);
      return Status();
    }
  }
}

Status Node::up_object(Process* p, uint16_t type, const std::string& payload) {
  wire::ObjectRecord r;
  if (!wire::read(payload, &r) || r.head.state > wire::kObjLost) return malformed("object");
  const std::vector<ObjectId> contained = r.contained.vector();
  if (type == wire::kUpObjShare) step(event::Share{p->index, r.head, contained.data()}, loop_now_);
  else step(event::Ready{p->index, r.head, contained.data()}, loop_now_);
  return Status();
}

Status Node::up_result(const std::string& payload) {
  wire::ResultRecord r;
  if (!wire::read(payload, &r)) return malformed("result");
  const std::vector<ObjectId> contained = r.contained.vector();
  step(event::Registered{r.head, contained.data()}, loop_now_);
  return Status();
}

// ---- actors

Status Node::up_actor_create(Process* p, const std::string& payload) {
  wire::ActorCreateRecord r;
  if (!wire::read(payload, &r)) return malformed("actor");
  const wire::UpActorCreate& c = r.head;
  event::ActorCreate create;
  actor::Spec& spec = create.spec;
  spec.id = c.id;
  spec.creator = p->index;
  spec.req_id = c.req_id;
  spec.language = c.language;
  spec.max_restarts = c.max_restarts;
  spec.max_task_retries = c.max_task_retries;
  spec.lifetime = c.lifetime;
  spec.max_concurrency = c.max_concurrency ? c.max_concurrency : 1;
  spec.flags = c.flags;
  spec.max_pending_calls = c.max_pending_calls;
  spec.function = c.function;
  spec.name = r.name;
  spec.ns = r.ns;
  spec.klass = r.klass;
  spec.metadata = r.metadata;
  spec.resources = r.resources;
  spec.record = r.record;
  r.dependencies.copy_to(&spec.dependencies);
  step(std::move(create));
  return Status();
}

Status Node::up_actor(Process* p, uint16_t type, const std::string& payload) {
  wire::ActorSaysRecord r;
  if (!wire::read(payload, &r)) return malformed("actor");
  const wire::UpActor& u = r.head;
  switch (type) {
    case wire::kUpActorConnect: {
      wire::ActorFacts facts{};
      const bool announced = u.flags & 1;
      if (announced && !r.facts(&facts)) return malformed("actor");
      step(event::ActorConnect{p->index, u.id, announced ? &facts : nullptr});
      return Status();
    }
    case wire::kUpActorKill: return step(event::ActorKill{u.id, (u.flags & 1) != 0}), Status();
    case wire::kUpActorReady:
      return step(event::ActorReady{p->index, u.id, u.incarnation, u.code, std::string(r.text)}), Status();
    default: return step(event::ActorExit{p->index, u.id, std::string(r.text), (u.flags & 1) != 0}), Status();
  }
}

}  // namespace ray::node
