// The store's client: put, get and release of sealed objects in shared memory, without a daemon
// round trip. See docs/store.md for the layout and the proof. Usable without the rest of libray.
//
// Who calls it: the runtime (libray/runtime), tests, tools. Threads: any; calls on one Building or
// one Pin are serialised by the caller.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "libray/base/ids.h"
#include "libray/base/status.h"
#include "libray/wire/protocol.h"

namespace ray::store {

using wire::Location;

struct Building {  // an object under construction; invisible to others, gone if this process dies
  uint8_t* data = nullptr;
  uint64_t size = 0;
  uint64_t cookie = 0;  // private to the client
  // Whose copy it becomes, when another process is to have it: known before the seal, so that it does not
  // matter who of the two dies when. 0: the client's own.
  uint32_t owner = 0;
  uint32_t attempt = 0;  // of the task that makes it
};
struct Pin {  // a sealed object that stays where it is until unpinned; bytes are read-only
  const uint8_t* data = nullptr;
  uint64_t size = 0;
  uint64_t cookie = 0;
};

// While one lives, the waits of this thread inside a Client ask it every 50 ms whether to go on; a wait that may not
// ends with RAY_CANCELLED. `stop` is called without any lock of the client's.
class Interruptible {
 public:
  explicit Interruptible(const std::function<bool()>* stop);
  ~Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  const std::function<bool()>* before_;
};

class Client {
 public:
  // Connects to a daemon's socket; `token` as in the session's token file. `process`: index on the node;
  // what it seals goes with it, unless the node's directory knows of it. 0: stays until it is dropped.
  static Result<std::unique_ptr<Client>> connect(const std::string& socket_path,
                                                 const std::string& token, uint32_t process = 0);
  virtual ~Client() = default;
  // data is 64-byte aligned. Waits while the store is full and spilling makes progress, at most
  // timeout_ns without progress, then RAY_STORE_FULL with a message that says what holds the
  // memory.
  virtual Status create(const ObjectId& id, uint64_t size, int64_t timeout_ns, Building* out) = 0;
  // The commit. *out is the name of this copy: another one of the same id has another, and each is freed
  // by itself.
  virtual Status seal(Building* building, Location* out) = 0;
  virtual void abort(Building* building) = 0;
  // Pins the copy that was sealed at `hint`, wherever it is now; a zero hint means any copy. One that was
  // moved is looked for in the directory, and the daemon is asked when it was spilled. RAY_NOT_FOUND =
  // freed or never sealed. Waits for a spilled one as long as that makes progress, at most timeout_ns without
  // (RAY_STORE_FULL), and in all no longer than `within_ns` (RAY_TIMED_OUT; 0: only what is in memory).
  // `out->data` is valid until unpin.
  virtual Status pin(const ObjectId& id, const Location& hint, int64_t timeout_ns, int64_t within_ns,
                     Pin* out) = 0;
  Status pin(const ObjectId& id, const Location& hint, int64_t timeout_ns, Pin* out) {
    return pin(id, hint, timeout_ns, timeout_ns == 0 ? 0 : -1, out);
  }
  virtual void unpin(Pin* pin) = 0;
  // Nobody refers to this copy any more: free it as soon as nobody pins it. Never blocks.
  virtual void drop(const ObjectId& id, const Location& hint) = 0;
  // The store's daemon is gone: nothing comes any more.
  virtual bool disconnected() const = 0;
};

}  // namespace ray::store
