// Objects that several processes know: sharing, publishing, importing, lending. See objects.h.
#include <algorithm>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/runtime/objects.h"

namespace ray {

// From now on the directory counts us as a holder of it. Mutex held.
void Objects::mark_shared(Object* o) {
  o->shared = true;
  ++o->holds;
  // A task that ran twice in this process made it twice: the later one is meant from now on.
  Object* before = o->in_table ? nullptr : table_.find(o->id);
  if (before && before->done()) {
    table_.erase(before);
    before->in_table = false;
    before = nullptr;
  }
  if (!o->in_table && !before) {
    table_.set(o);
    o->in_table = true;
  }
  daemon_.up(wire::kUpObjShare, wire::UpObj{o->id, {}, wire::kObjPending, RAY_OK, 0, 0});
}

// A value that is here gets its copy in the store first: without room for it nothing has happened, and the next who
// wants to share it tries again.
Status Objects::share(Object* o, int64_t patience_ns) {
  bool ready;
  {
    std::lock_guard lock(mutex_);
    if (o->shared || o->borrowed) return Status();
    ready = o->done();
    if (!ready) {
      mark_shared(o);
      o->publish_on_ready = true;
      ++n_awaited_;
      user_->awaited(o);
    }
  }
  if (!ready) {
    bells_.poke();
    return Status();
  }
  if (o->contained)
    for (Object* c : *o->contained) RAY_TRY(share(c, patience_ns));
  wire::UpObj u;
  if (Status s = copy_for_others(o, patience_ns, &u); !s.ok()) {
    {
      std::lock_guard lock(mutex_);
      if (o->shared) return Status();  // by another thread meanwhile, whose copy may be what left no room
    }
    if (u.state != wire::kObjError)
      return error(s.code(), "object %s cannot be shared: %s", o->id.hex().c_str(), s.message().c_str());
    without_copy(o, s, &u);
  }
  bool late;  // another thread was faster
  {
    std::lock_guard lock(mutex_);
    late = o->shared;
    if (!late) {
      mark_shared(o);
      note_copy(o, u);
    }
  }
  if (!late) tell_ready(o, u);
  else if (auto client = store(); client && u.location.size && o->where != Where::kStore) client->drop(o->id, u.location);
  return Status();
}

// A pseudo-object, of which the directory hears before anybody could ask.
void Objects::share_new(Object* o) {
  o->shared = o->in_table = true;
  o->holds = 1;
  table_.set(o);
  daemon_.up(wire::kUpObjShare, wire::UpObj{o->id, {}, wire::kObjPending, RAY_OK, 0, 0});
}

// Puts a value or an error that is here into the store, unless it lies there already. No lock held.
Status Objects::copy_for_others(Object* o, int64_t patience_ns, wire::UpObj* u) {
  *u = {o->id, {}, wire::kObjReady, RAY_OK, 0, 0};
  auto copy = [&](const void* bytes, uint64_t size) -> Status {
    std::shared_ptr<store::Client> store;
    RAY_TRY(open_store(&store));
    store::Building b;
    RAY_TRY(of_store(store->create(o->id, size, patience_ns, &b)));
    std::memcpy(b.data, bytes, size);
    return of_store(store->seal(&b, &u->location));
  };
  if (o->state.load(std::memory_order_acquire) == ObjState::kError) {
    ErrorBox* e = o->error;
    e->seen.store(true, std::memory_order_relaxed);  // by whoever it is published for
    u->state = wire::kObjError;
    u->code = e->code;
    const std::string image = wire::pack_error(e->code, e->message, e->payload_format, e->payload);
    return copy(image.data(), image.size());
  }
  if (o->where == Where::kStore) {
    u->location = o->location;
    return Status();
  }
  if (o->packed) return copy(o->bytes(), o->size);
  return pack_to_store(ray_plain(o->bytes(), o->size, o->format), o->id, &u->location, 0, 0, patience_ns);
}

// There is no room for it: others get an error. What kind of error it is needs none.
void Objects::without_copy(Object* o, const Status& s, wire::UpObj* u) {
  const bool failed = u->state == wire::kObjError;
  const std::string why = failed ? "; it is an error: " + o->error->message : "";
  log(kLogWarning, "runtime", "publish-failed", "object %s cannot be shared: %s%.1000s", o->id.hex().c_str(),
      s.message().c_str(), why.c_str());
  *u = {o->id, {}, wire::kObjError, failed ? u->code : s.code(), 0, 0};
}

// Of a value that lies in this process, too. Mutex held.
void Objects::note_copy(Object* o, const wire::UpObj& u) {
  if (u.state == wire::kObjReady && o->where != Where::kStore) published_[o] = u.location;
}

void Objects::tell_ready(Object* o, const wire::UpObj& u) {
  std::vector<ObjectId> ids;
  // That the directory does not know of yet: what a result contains is registered by whoever made it.
  if (u.state == wire::kObjReady && o->contained)
    for (Object* c : *o->contained) ids.push_back(c->id);
  RAY_FAULT("object.sealed");  // in the store, and the node has not been told
  send_object(wire::kUpObjReady, u, ids);
  RAY_FAULT("object.published");
}

bool Objects::publish(Object* o, int64_t patience_ns, bool last) {
  wire::UpObj u;
  Status s = copy_for_others(o, patience_ns, &u);
  if (no_room(s) && !last) return false;
  if (!s.ok()) without_copy(o, s, &u);
  {
    std::lock_guard lock(mutex_);
    note_copy(o, u);
  }
  tell_ready(o, u);
  return true;
}

// Long lists of contained references travel in pieces: each record but the last says "pending", and
// the directory adds them up.
void Objects::send_object(uint16_t type, wire::UpObj u, const std::vector<ObjectId>& ids) {
  constexpr size_t kPiece = 4096;
  size_t at = 0;
  for (; ids.size() - at > kPiece; at += kPiece) {
    wire::UpObj part{u.id, {}, wire::kObjPending, RAY_OK, kPiece, 0};
    daemon_.up_bytes(type, &part, sizeof part, &ids[at], kPiece * sizeof(ObjectId));
  }
  u.n_contained = static_cast<uint32_t>(ids.size() - at);
  daemon_.up_bytes(type, &u, sizeof u, ids.data() + at, u.n_contained * sizeof(ObjectId));
}

Status Objects::export_hold(Object* o) {
  RAY_TRY(share(o));
  daemon_.up(wire::kUpObjHold, wire::UpObjCount{o->id, bells_.process(), 1});
  return Status();
}

Status Objects::import(const ObjectId& id, const wire::Location& hint, Object** out) {
  std::lock_guard lock(mutex_);
  return import_one(id, hint, nullptr, out);
}

// References that a value contains, n of them from `first`. Nothing is imported when this fails.
Status Objects::import_contained(const BufferView& view, uint32_t first, uint32_t n, ray_ref** out) {
  Object* lender = view.owner && view.owner->registered ? view.owner : nullptr;
  Status s;
  uint32_t i = 0;
  {
    std::lock_guard lock(mutex_);
    for (; i < n && s.ok(); ++i) {
      wire::PackedRef r = view.packed.ref(first + i);
      Object* o;
      s = import_one(r.id, r.hint, lender, &o);
      if (s.ok()) out[i] = hand_out(o);
    }
  }
  if (s.ok()) return s;
  for (--i; i-- > 0;) ray_ref_release(out[i]);
  return s;
}

Status Objects::hold_contained(BufferView* view) {
  const uint32_t n = view->packed.n_refs;
  if (n == 0) return Status();
  std::vector<Object*> held;
  held.reserve(n);  // nothing is made that could not be kept
  Status s;
  {
    std::lock_guard lock(mutex_);
    for (uint32_t i = 0; i < n && s.ok(); ++i) {
      wire::PackedRef r = view->packed.ref(i);
      Object* o;
      s = import_one(r.id, r.hint, nullptr, &o);
      if (s.ok()) held.push_back(o);
    }
  }
  if (s.ok()) view->contained.swap(held);
  for (Object* o : held) release(o);
  return s;
}

static bool same_copy(const wire::Location& a, const wire::Location& b) {
  return a.segment == b.segment && a.generation == b.generation && a.offset == b.offset;
}

// Of an id that was made again the giver of `hint` means its copy, which may not be the one that `there` stands for:
// also when that one has no copy that anybody could know of yet, or has no value. Mutex held.
bool Objects::means_other(const Object* there, const wire::Location& hint) const {
  if (hint.size == 0) return false;
  if (there->state.load(std::memory_order_acquire) != ObjState::kReady) return true;
  if (there->where == Where::kStore) return !same_copy(there->location, hint);
  auto copy = published_.find(there);
  return copy == published_.end() || !same_copy(copy->second, hint);
}

// Mutex held.
Status Objects::import_one(const ObjectId& id, const wire::Location& hint, Object* lender,
                           Object** out) {
  Object* there = table_.find(id);
  const bool other = there && means_other(there, hint);
  if (there && !other && try_retain(there)) {
    *out = there;
    return Status();
  }
  // What we make ourselves, and what the daemon was asked for by its id alone, is still found by that.
  const bool stays = other && there->refs() != 0 && !(there->borrowed && there->done());
  if (there && !stays) {
    table_.erase(there);
    there->in_table = false;  // being freed on another thread, or from now on found by its handles alone
    if (there->lender) hold_lent(there);
  }
  Object* o = RAY_FAULT_FAILS("client.import") ? nullptr : make(id);
  if (!o) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  if (!stays) table_.set(o);
  o->borrowed = true;
  o->in_table = !stays;
  if (lender) {
    lend_to(lender, o);
  } else {
    daemon_.up(wire::kUpObjHold, wire::UpObjCount{id, bells_.process(), 1});
    o->holds = 1;
  }
  if (hint.size) {
    o->where = Where::kStore;
    o->packed = true;
    o->location = hint;
    o->size = hint.size;
    o->state.store(ObjState::kReady, std::memory_order_release);
  } else {
    o->state.store(ObjState::kUnresolved, std::memory_order_release);
  }
  *out = o;
  return Status();
}

void Objects::lend_to(Object* lender, Object* o) {
  o->lender = lender;
  o->previous_lent = nullptr;
  o->next_lent = lender->lent;
  if (lender->lent) lender->lent->previous_lent = o;
  lender->lent = o;
}

void Objects::leave_lender(Object* o) {
  (o->previous_lent ? o->previous_lent->next_lent : o->lender->lent) = o->next_lent;
  if (o->next_lent) o->next_lent->previous_lent = o->previous_lent;
  o->lender = nullptr;
}

// A hold of its own instead of its lender. Mutex held.
void Objects::hold_lent(Object* o) {
  leave_lender(o);
  daemon_.up(wire::kUpObjHold, wire::UpObjCount{o->id, bells_.process(), 1});
  o->holds = 1;
}

void Objects::ask(Object* o) {
  if (ErrorBox* e = user_->over(); __builtin_expect(e != nullptr, 0)) {
    user_->failed(o, e);
    return e->release();
  }
  o->resolving = true;
  daemon_.up(wire::kUpObjResolve, wire::UpObj{o->id, {}, wire::kObjPending, RAY_OK, 0, 0});
}

void Objects::on_state(const wire::DnObjState& s) {
  Object* o = table_.find(s.id);
  if (!o) return;
  if (o->state.load(std::memory_order_relaxed) != ObjState::kUnresolved) return;
  if (s.state == wire::kObjReady) {
    o->where = Where::kStore;
    o->packed = true;
    o->location = s.location;
    o->size = s.location.size;
    o->state.store(ObjState::kReady, std::memory_order_release);
    user_->completed(o);
  } else if (s.state == wire::kObjError && s.location.size) {
    // The error itself lies in the store: read it without the lock, then complete.
    if (!try_retain(o)) return;
    read_error_later({o, s.location, false});
  } else {
    ray_code code = s.state == wire::kObjLost && s.code == RAY_OK ? RAY_OBJECT_LOST : s.code;
    std::string why = s.state == wire::kObjLost
                          ? " is lost: the process that was to make it died"
                          : std::string(" could not be stored for others (") + ray_code_name(code) +
                                "); the log of the process that made it has the reason";
    ErrorBox* e = make_error(code, "object " + s.id.hex() + why);
    user_->failed(o, e);
    e->release();
  }
}

bool Objects::read_error(const StoredError& stored, int64_t patience_ns, bool last) {
  Object* o = stored.object;
  store::Pin pin;
  ray_code code = RAY_OBJECT_LOST;
  std::string message = "the error of object " + o->id.hex() + " cannot be read", payload;
  uint32_t format = 0;
  const int64_t within = patience_ns == kStoreTimeoutNs ? -1 : patience_ns;
  std::shared_ptr<store::Client> store;
  Status s = open_store(&store);
  if (s.ok()) s = of_store(store->pin(o->id, stored.location, kStoreTimeoutNs, within, &pin));
  if (no_room(s) && !last) return false;
  if (s.ok()) {
    wire::unpack_error(pin.data, pin.size, &code, &message, &format, &payload);
    store->unpin(&pin);
  } else if (s.code() == RAY_NODE_DIED) {
    code = s.code();
    message = s.message();
  }
  if (stored.ours && store) store->drop(o->id, stored.location);
  ErrorBox* e = make_error(code, message, format, payload);
  {
    std::lock_guard lock(mutex_);
    if (!o->done()) user_->failed(o, e);
  }
  e->release();
  bells_.poke();
  return true;
}

void Objects::publish_later(Object* o) {
  o->publish_on_ready = false;
  --n_awaited_;
  deferred_.publish.push_back(retain(o));
  defer();
}

void Objects::take_deferred(Deferred* out) {
  std::swap(*out, deferred_);
  if (!out->publish.empty()) begin_publishing();
}

}  // namespace ray
