// Streams: the rules of a stream, the results of a generator's task, item by item, with a bounded window. The worker waits
// when it is `window` items ahead of what was consumed; the count of consumed items is a word of the task's record in the
// ring, which only the client writes.
//
// Who: Runtime: results.cc with what came, stream_calls.cc for whoever takes it. Threads: any; the caller holds Runtime's
// mutex. It has no state but the streams' own (Stream in types.h).
//
// Invariants: (1) an item is taken once, in order: `received` is the index of the next that counts, and a generator that runs
// again repeats what came before, which is skipped; (2) each item that goes is acknowledged, also when nobody takes it, or its
// producer would wait for ever; (3) after its task has ended a stream has nothing more to wait for, and goes with its last use.
#pragma once
#include <vector>

#include "libray/runtime/notifications.h"
#include "libray/runtime/objects.h"

namespace ray {

class Streams {
 public:
  // Who knows tasks. With the mutex held, but for unwatched.
  class User {
   public:
    virtual ~User() = default;
    virtual void ended(Object* completion, ErrorBox* e) = 0;  // it becomes that error, or nil
    virtual void failed(Object* item, ErrorBox* e) = 0;       // it becomes that error
    virtual void unwatched(uint64_t tag) = 0;  // nobody waits for that task any more; without a lock, on the pulse thread
  };
  Streams(User* user, Objects& objects, Notifications& notifications, Callbacks& callbacks, Bells& bells)
      : user_(user), objects_(objects), notifications_(notifications), callbacks_(callbacks), bells_(bells) {}

  // ---- its task
  // Whether the item is one that counts; it is then made and given to add().
  static bool expects(Stream* s, uint32_t index) {
    s->from_attempt = index + 1;
    return index == s->received && !s->starved;
  }
  void add(Stream* s, Object* item);
  // The task is over. An error becomes the last item.
  void end(PendingTask* t, ErrorBox* e);

  // ---- whoever takes items
  // False: nothing is there, and something may come. Else the item, or null when nothing comes any more.
  bool take(Stream* s, Object** out);
  void tell(Stream* s, uint64_t token);  // once, that there is something
  // The object that stands for the task's end, made when somebody asks for it; not retained. Null: no memory.
  Object* completion(Stream* s);
  // The last handle went: what it had, to be released without the mutex. True: the task is not wanted either.
  bool release(Stream* s, std::vector<Object*>* items);
  void unused(Stream* s);  // nor does a call wait for it

  // ---- what stands for the end
  // Another process is to have it: from now on the task's end is waited for, whoever has references here.
  static void keep_completion(Object* completion);
  // The last reference to it went: of a released stream nobody waits for the task.
  void drop_completion(const Object* completion);

 private:
  void ack(Stream* s);
  void deliver(Stream* s);
  void complete(Stream* s);
  void free(Stream* s);

  User* const user_;
  Objects& objects_;
  Notifications& notifications_;
  Callbacks& callbacks_;
  Bells& bells_;
};

}  // namespace ray
