// See node.h. Up records: decoded, checked, told to the core. Main thread; once per record of every process, so nothing here
// allocates for records that have no list in them.
#include <cstring>

#include "libray/lineage/record.h"
#include "libray/node/node.h"
#include "libray/wire/cursor.h"

namespace ray::node {
namespace {

template <class T>
bool read_record(const std::string& payload, T* out) {
  if (payload.size() < sizeof(T)) return false;
  std::memcpy(out, payload.data(), sizeof(T));
  return true;
}

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
      if (!read_record(payload, &s)) return malformed("shape");
      step(event::Shape{p->index, s.shape, s.language, std::string_view(payload).substr(sizeof s)});
      return Status();
    }
    case wire::kUpLeaseWant: {
      wire::UpLeaseWant w;
      if (!read_record(payload, &w)) return malformed("lease");
      step(event::Want{p->index, w.shape, w.want, w.example}, loop_now_);
      return Status();
    }
    case wire::kUpLeaseReturn: {
      wire::UpLeaseReturn l;
      if (!read_record(payload, &l)) return malformed("lease");
      step(event::Return{p->index, l.worker, l.lease});
      return Status();
    }
    case wire::kUpBlocked: {
      wire::UpBlocked b;
      if (!read_record(payload, &b)) return malformed("blocked");
      step(event::Blocked{p->index, b.blocked != 0}, loop_now_);
      return Status();
    }
    case wire::kUpRetire: return step(event::Retire{p->index}), Status();
    case wire::kUpKillWorker: {
      wire::UpLeaseReturn l;
      if (!read_record(payload, &l)) return malformed("kill");
      step(event::KillAsked{p->index, l.worker, l.lease});
      return Status();
    }
    case wire::kUpStopped: return up_stopped(p, payload);
    case wire::kUpLinkLost: {
      wire::UpLinkLost l;
      if (!read_record(payload, &l)) return malformed("link");
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
      if (!read_record(payload, &c)) return malformed("count");
      if (type == wire::kUpObjRelease) step(event::Release{p->index, c}, loop_now_);
      else step(event::Hold{c}, loop_now_);
      return Status();
    }
    case wire::kUpObjResult: return up_result(payload);
    case wire::kUpFunctionDrop: {
      wire::UpFunctionDrop d;
      if (!read_record(payload, &d)) return malformed("function");
      step(event::FunctionDrop{p->index, d.key, d.count}, loop_now_);
      return Status();
    }
    case wire::kUpObjDiscard: {
      wire::UpObjDiscard d;
      if (!read_record(payload, &d)) return malformed("discarded result");
      step(event::Discarded{d}, loop_now_);
      return Status();
    }
    case wire::kUpObjResolve: {
      ObjectId id;
      if (payload.size() < kIdSize) return malformed("resolve");
      std::memcpy(id.b, payload.data(), kIdSize);
      step(event::Resolve{p->index, id}, loop_now_);
      return Status();
    }
    default: {
      wire::ObjCancel c;
      if (!read_record(payload, &c)) return malformed("cancel");
      step(event::CancelTask{c}, loop_now_);
      return Status();
    }
  }
}

Status Node::up_object(Process* p, uint16_t type, const std::string& payload) {
  wire::UpObj o;
  if (!read_record(payload, &o) || o.state > wire::kObjLost ||
      payload.size() < sizeof o + uint64_t{o.n_contained} * kIdSize)
    return malformed("object");
  std::vector<ObjectId> contained(o.n_contained);
  if (o.n_contained)
    std::memcpy(contained.data(), payload.data() + sizeof o, o.n_contained * kIdSize);
  if (type == wire::kUpObjShare) step(event::Share{p->index, o, contained.data()}, loop_now_);
  else step(event::Ready{p->index, o, contained.data()}, loop_now_);
  return Status();
}

Status Node::up_result(const std::string& payload) {
  wire::UpObjResult r;
  if (!read_record(payload, &r) || payload.size() < sizeof r + uint64_t{r.n_contained} * kIdSize)
    return malformed("result");
  std::vector<ObjectId> contained(r.n_contained);
  if (r.n_contained) std::memcpy(contained.data(), payload.data() + sizeof r, r.n_contained * kIdSize);
  step(event::Registered{r, contained.data()}, loop_now_);
  return Status();
}

// ---- actors

Status Node::up_actor_create(Process* p, const std::string& payload) {
  wire::UpActorCreate c;
  if (!read_record(payload, &c)) return malformed("actor");
  uint64_t sizes = uint64_t{c.name_size} + c.ns_size + c.class_size + c.metadata_size +
                   c.resources_size + c.record_size + uint64_t{c.n_dependencies} * kIdSize;
  if (sizes > payload.size() - sizeof c) return malformed("actor");
  size_t at = sizeof c;
  auto next = [&payload, &at](uint64_t n) {
    std::string s = payload.substr(at, n);
    at += n;
    return s;
  };
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
  spec.name = next(c.name_size);
  spec.ns = next(c.ns_size);
  spec.klass = next(c.class_size);
  spec.metadata = next(c.metadata_size);
  spec.resources = next(c.resources_size);
  spec.record = next(c.record_size);
  spec.dependencies.resize(c.n_dependencies);
  for (ObjectId& d : spec.dependencies) std::memcpy(d.b, next(kIdSize).data(), kIdSize);
  step(std::move(create));
  return Status();
}

Status Node::up_actor(Process* p, uint16_t type, const std::string& payload) {
  wire::UpActor u;
  if (!read_record(payload, &u) || u.size > payload.size() - sizeof u) return malformed("actor");
  std::string bytes = payload.substr(sizeof u, u.size);
  switch (type) {
    case wire::kUpActorConnect: {
      wire::ActorFacts facts{};
      const bool announced = u.flags & 1;
      if (announced && !read_record(bytes, &facts)) return malformed("actor");
      step(event::ActorConnect{p->index, u.id, announced ? &facts : nullptr});
      return Status();
    }
    case wire::kUpActorKill: return step(event::ActorKill{u.id, (u.flags & 1) != 0}), Status();
    case wire::kUpActorReady:
      return step(event::ActorReady{p->index, u.id, u.incarnation, u.code, std::move(bytes)}), Status();
    default: return step(event::ActorExit{p->index, u.id, std::move(bytes), (u.flags & 1) != 0}), Status();
  }
}

}  // namespace ray::node
