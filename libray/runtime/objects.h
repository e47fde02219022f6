// Objects: the objects that this process refers to, and its part in counting references across the node: values that are put,
// objects that become shared, references that come from elsewhere, copies in the store, and the end of each.
// docs/architecture.md, "References", has the protocol.
//
// Who: Runtime and its parts, WorkerSide for results, the C API for values and references. Threads: any. "Mutex" below is
// Runtime's: the hot path wants one lock for tasks and their results, so this class has none of its own but for the pointer to
// the store. Where no word is said a call takes the mutex itself if it needs it, and must not be called with it.
// Files: objects.cc making, packing, freeing · sharing.cc others are to have it · buffers.cc reading.
//
// Invariants: (1) an entry in the table is shared or borrowed, and is found by its id alone; (2) what is published lies in the
// store and is shared; (3) an entry with a lender has no hold of its own, and its lender is registered with the directory;
// (4) n_awaited() is how many entries are to be published once they are there; (5) an entry goes with its last reference,
// and tells the directory of every hold that it had.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libray/base/fork.h"
#include "libray/base/spin.h"
#include "libray/runtime/bells.h"
#include "libray/runtime/daemon_channel.h"
#include "libray/runtime/object.h"
#include "libray/runtime/object_table.h"
#include "libray/runtime/unread_errors.h"
#include "store/client.h"

namespace ray {

struct WriterState;

// What a value must be to be read at all; of a shape the sizes alone count.
Status check_value(const ray_value& v, bool shape = false);
inline bool no_room(const Status& s) { return s.code() == RAY_STORE_FULL || s.code() == RAY_TIMED_OUT; }

class Objects {
 public:
  static constexpr int64_t kStoreTimeoutNs = 10000000000;  // back-pressure without progress

  // Who knows what objects are for. With the mutex held, but for store_lost.
  class User {
   public:
    virtual ~User() = default;
    virtual void completed(Object* o) = 0;                // one of another process is there
    virtual void failed(Object* o, ErrorBox* e) = 0;      // and has this for its value; not yet set
    virtual void awaited(Object* o) = 0;                      // others wait for it, and we make it
    virtual void dropped(const Object* o) = 0;            // the last reference to what a task of ours is to make
    virtual ErrorBox* over() = 0;                         // why nobody answers any more; null: the daemon does
    virtual Status store_lost(Status s) = 0;              // the store does not answer: what that means
  };
  struct StoredError {
    Object* object = nullptr;  // retained
    wire::Location location;
    bool ours = false;  // it was sealed for us, and goes when it was read
  };
  // What may not happen under the mutex.
  struct Deferred {
    std::vector<Object*> publish, release;
    std::vector<StoredError> errors;
  };

  // `deferred` is set when take_deferred() has something.
  Objects(Runtime* runtime, User* user, std::mutex& mutex, std::atomic<bool>& deferred, DaemonChannel& daemon, Bells& bells,
          UnreadErrors& unread)
      : runtime_(runtime), user_(user), mutex_(mutex), have_deferred_(deferred), daemon_(daemon), bells_(bells),
        unread_(unread) {}

  // ---- the store. Whoever may wait in it keeps it: after the shutdown there is none.
  void set_store(std::shared_ptr<store::Client> client) { store_ = std::move(client); }
  std::shared_ptr<store::Client> store() const {
    std::lock_guard lock(store_mutex_);
    return store_;
  }
  std::shared_ptr<store::Client> take_store();  // mutex held
  Status open_store(std::shared_ptr<store::Client>* out) const;  // or why not
  Status of_store(Status s) const { return s.code() == RAY_UNAVAILABLE ? user_->store_lost(std::move(s)) : s; }
  void unpin(store::Pin* pin);
  // Asked now and then by whoever waits for room; set before there are any.
  void set_stop_waiting(std::function<bool()> stop) { stop_waiting_ = std::move(stop); }
  const std::function<bool()>* stop_waiting() const { return &stop_waiting_; }
  void stop() { stopped_ = true; }  // from now on nobody is told of what goes

  // ---- making
  // With these counts, owned by the caller. Needs no lock: nobody else knows it yet.
  Object* make(const ObjectId& id, uint64_t counts = 1);
  Status put(const ObjectId& id, const ray_value& value, Object** out);  // a value that check_value() likes
  Status seal_put(WriterState* w, Object** out);
  // Packs a value with its refs shared; small ones into *image.
  Status pack_inline(const ray_value& v, std::string* image);
  Status pack_to_store(const ray_value& v, const ObjectId& id, wire::Location* out, uint32_t owner = 0, uint32_t making = 0,
                       int64_t patience_ns = kStoreTimeoutNs);
  Status pack_refs(const ray_value& v, std::vector<wire::PackedRef>* out);
  wire::PackedRef packed_ref(Object* o);
  void share_new(Object* o);  // ours from the beginning, and has no value; mutex held

  // ---- references
  void release(Object* o) {
    if (o->drop()) free(o);
  }
  // A caller's handle; nothing happens when there is none any more.
  void release_handle(Object* o) {
    if (take_back(o) == TakenBack::kLast) free(o);
  }
  void release_later(Object* o) {  // mutex held
    deferred_.release.push_back(o);
    defer();
  }
  Object* find_object(const ObjectId& id);  // one that this process refers to; retained, or nullptr
  Object* known(const ObjectId& id) const { return table_.find(id); }  // that others know too; mutex held
  template <class F>
  void for_each_known(F&& f) const {  // mutex held
    table_.for_each(f);
  }
  // mutex held. The object is freed; references that it contained go to `more`.
  void free_one(Object* o, std::vector<Object*>* more);

  // ---- sharing (sharing.cc)
  // Makes the object known to the node, so that a reference to it may leave this process.
  Status share(Object* o, int64_t patience_ns = kStoreTimeoutNs);
  Status export_hold(Object* o);
  // That the directory has of us, and no entry here counts.
  void give_up_hold(const ObjectId& id) { daemon_.up(wire::kUpObjRelease, wire::UpObjCount{id, bells_.process(), 1}); }
  Status import(const ObjectId& id, const wire::Location& hint, Object** out);
  Status import_one(const ObjectId& id, const wire::Location& hint, Object* lender, Object** out);  // mutex held
  Status import_contained(const BufferView& view, uint32_t first, uint32_t n, ray_ref** out);
  // All of them, as long as the buffer: it is kept longer than what its value was part of.
  Status hold_contained(BufferView* view);
  // Asks the daemon once; when nobody will answer any more the object fails. Mutex held.
  void resolve(Object* o) {
    if (!o->resolving && o->state.load(std::memory_order_relaxed) == ObjState::kUnresolved) ask(o);
  }
  void on_state(const wire::DnObjState& s);  // mutex held
  // Of an object that was shared before it was there. False: there was no room within `patience_ns`, and it is to be
  // tried again; the last time it gets the error instead.
  bool publish(Object* o, int64_t patience_ns, bool last);
  // The same of an error that lies in the store.
  bool read_error(const StoredError& e, int64_t patience_ns, bool last);
  // A result that nobody takes. Mutex held.
  void discard(const ObjectId& id, uint32_t making, const wire::ArgHeader& h, const uint8_t* bytes);
  // It is there. Mutex held.
  void publish_if_awaited(Object* o) {
    if (__builtin_expect(o->publish_on_ready, 0)) publish_later(o);
  }
  void read_error_later(StoredError e) {  // mutex held
    deferred_.errors.push_back(e);
    defer();
  }
  size_t n_awaited() const { return n_awaited_; }  // mutex held

  // ---- what was left for when the mutex is dropped
  void take_deferred(Deferred* out);  // mutex held
  void begin_publishing() { ++publishing_; }
  bool end_publishing() { return --publishing_ == 0; }  // true: nobody publishes any more
  bool all_published() const { return deferred_.publish.empty() && publishing_ == 0; }  // mutex held

  // ---- reading (buffers.cc)
  // The object is ready. Within that time if it lies on disk; negative: as long as it takes.
  Status fill_buffer(Object* o, int64_t within_ns, ray_buffer* out);

  std::string check();  // what is wrong, empty: nothing; mutex held

 private:
  void defer() {
    if (!have_deferred_.load(std::memory_order_relaxed)) have_deferred_ = true;
  }
  void free(Object* o);
  void ask(Object* o);
  void publish_later(Object* o);
  void mark_shared(Object* o);
  Status copy_for_others(Object* o, int64_t patience_ns, wire::UpObj* u);
  static void without_copy(Object* o, const Status& s, wire::UpObj* u);
  void note_copy(Object* o, const wire::UpObj& u);
  void tell_ready(Object* o, const wire::UpObj& u);
  void send_object(uint16_t type, wire::UpObj u, const std::vector<ObjectId>& ids);
  bool means_other(const Object* there, const wire::Location& hint) const;
  Status fill_store_buffer(Object* o, int64_t within_ns, ray_buffer* out);
  static void lend_to(Object* lender, Object* o);
  static void leave_lender(Object* o);
  void hold_lent(Object* o);

  Runtime* const runtime_;  // that of our entries
  User* const user_;
  std::mutex& mutex_;
  std::atomic<bool>& have_deferred_;
  DaemonChannel& daemon_;
  Bells& bells_;
  UnreadErrors& unread_;
  const uint32_t fork_generation_ = fork_generation();
  std::atomic<bool> stopped_{false};
  std::function<bool()> stop_waiting_;
  mutable SpinLock store_mutex_;          // of the next, a leaf; who has mutex_ may read it without
  std::shared_ptr<store::Client> store_;  // buffers and writers keep it too
  ObjectTable table_;
  // Where the store has the copies of values that lie in this process, of objects that are shared.
  std::unordered_map<const Object*, wire::Location> published_;
  Deferred deferred_;
  std::atomic<uint32_t> publishing_{0};  // threads that publish what they took
  size_t n_awaited_ = 0;
};

}  // namespace ray
