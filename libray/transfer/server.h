// What a node serves to others: which receivers, in which order, with how much memory. Pure: events in, actions out;
// driven by tests/transfer, by no daemon yet. A whole copy is pinned in the store, in memory or on disk, for as long
// as somebody is served; of a copy that the node's own planner is pulling, the chunks that are here are served too.
//
// Who asks for chunks of a large copy becomes one of its few receivers, or is told who they are and waits for its turn;
// receivers are told of each other. As each of them serves what it has, a copy for many nodes spreads like a swarm, and
// its source sends each chunk a few times at most. What fits one answer is answered at once, whoever asks.
//
// Invariants: receivers of a copy and bytes on their way (in all, from disk, and per connection) are bounded, and so are
// questions that wait: who asks the same twice waits once. Receivers take turns, one chunk each. A copy is pinned before
// its first byte is sent, and unpinned when its last receiver has gone and nothing of it is on its way.
#pragma once
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "libray/transfer/messages.h"

namespace ray::transfer {

struct ServeOptions {
  uint32_t chunk = 1u << 20;        // the same on all nodes
  uint32_t inline_max = 64u << 10;  // answered at once; at most a chunk
  uint32_t receivers = 2;           // of one copy at a time
  uint32_t window = 4;              // chunks on their way to one connection
  uint32_t flying = 64;             // in all
  uint32_t disk = 8;                // of these, read from disk: each has a buffer of a chunk
  uint32_t waiting = 256;           // questions of one node that wait
  int64_t idle_ns = 2'000'000'000;  // who asks for nothing for so long is no receiver any more, when others wait
};

struct ServeAction {
  enum Kind {
    kPin,    // copy: answered by pinned() or absent()
    kUnpin,  // copy
    kBytes,  // place, channel, copy, size, chunk, from_disk, ticket: send a kChunk with these bytes; answered by sent()
    kSend,   // place, channel, message
  } kind;
  Copy copy;
  Place place;
  uint32_t channel = 0, chunk = 0;
  uint64_t size = 0, ticket = 0;
  bool from_disk = false;
  Message message;
};
using ServeActions = std::vector<ServeAction>;

class Server {
 public:
  explicit Server(const ServeOptions& options = {}) : options_(options) {}

  // ---- other nodes. kAsk and kStop; others are ignored.
  void message(Place from, uint32_t channel, const Message& m, int64_t now, ServeActions* out);
  void down(Place place, uint32_t channel, int64_t now, ServeActions* out);  // what it asked there is forgotten
  void died(Place place, int64_t now, ServeActions* out);

  // ---- the store
  void pinned(const Copy& copy, uint64_t size, bool on_disk, int64_t now, ServeActions* out);
  void absent(const Copy& copy, int64_t now, ServeActions* out);
  void moved(const Copy& copy, bool on_disk);  // spilled or restored while pinned

  // ---- the node's own planner: kCreate, kWrite, kSeal, kAbandon
  void started(const Copy& copy, uint64_t size, int64_t now, ServeActions* out);
  void got(const Copy& copy, uint64_t size, uint32_t chunk, int64_t now, ServeActions* out);
  void complete(const Copy& copy, int64_t now, ServeActions* out);
  void gone(const Copy& copy, int64_t now, ServeActions* out);

  // ---- the driver. Bytes of a kBytes were taken by the connection, or went with it; not well: they cannot be read.
  // They have to stay where they are until then, also when the copy is abandoned.
  void sent(uint64_t ticket, bool well, int64_t now, ServeActions* out);
  void tick(int64_t now, ServeActions* out);
  int64_t deadline() const { return copies_.empty() ? INT64_MAX : tick_at_; }

  size_t flying() const { return tickets_.size(); }
  size_t from_disk() const { return disk_; }
  size_t copies() const { return copies_.size(); }
  size_t receivers(const Copy& copy) const;

 private:
  struct Receiver {
    uint32_t channel;
    int64_t asked_at;
  };
  struct Early {
    Place place;
    uint32_t channel, chunk;
    uint64_t size;
  };
  struct Serving {
    enum State : uint8_t { kUnknown, kPartial, kWhole } state = kUnknown;
    bool pinning = false, pinned = false, on_disk = false;
    uint64_t size = kUnknownSize;
    uint64_t serial = 0;                             // an entry that went and came back is another one
    Bits have{0};                                    // kPartial
    std::map<Place, Receiver> receivers;             // of what is large
    std::deque<std::pair<Place, uint32_t>> waiting;  // to become one, with the channel; they were told kBusy
    std::map<Place, uint32_t> interested;            // told of new chunks, on that channel
    std::deque<Place> done;                          // that got it from here
    std::deque<Early> early;                         // came before the store's answer
    uint32_t flying = 0, queued = 0, untold = 0;
  };
  struct Question {
    uint32_t channel;
    Copy copy;
    uint32_t chunk;
  };
  struct Peer {
    std::deque<Question> questions;
    std::set<std::pair<Copy, uint32_t>> known;  // of questions and of what is on its way
    std::map<uint32_t, uint32_t> flying;        // per channel
  };
  struct Ticket {
    Place place;
    uint32_t channel;
    Copy copy;
    uint32_t chunk;
    bool disk;
    uint64_t serial;
  };
  using Copies = std::map<Copy, Serving>;

  Serving* entry(const Copy& copy);
  void ask(const Early& q, const Copy& copy, Serving* s, int64_t now, ServeActions* out);
  bool take(const Early& q, const Copy& copy, Serving* s, int64_t now, ServeActions* out);
  void deny(const Early& to, const Copy& copy, const Serving* s, Why why, ServeActions* out) const;
  void tell_have(Place to, uint32_t channel, const Copy& copy, const Serving& s, ServeActions* out) const;
  void tell_interested(const Copy& copy, Serving* s, ServeActions* out) const;
  std::vector<Place> peers_for(Place place, const Serving& s) const;
  void answer_early(const Copy& copy, Serving* s, int64_t now, ServeActions* out);
  void forget(Place place, const Copy& copy, Serving* s, ServeActions* out);
  void drop_questions(Place place, const Copy* copy, const uint32_t* channel);
  void refuse_all(const Copy& copy, Serving* s, ServeActions* out);
  void wake_waiting(const Copy& copy, Serving* s, ServeActions* out) const;
  void consider(const Copy& copy, ServeActions* out);
  void pump(ServeActions* out);
  bool send_one(Place place, Peer* peer, ServeActions* out);
  void say(Place place, uint32_t channel, Message m, ServeActions* out) const;

  const ServeOptions options_;
  Copies copies_;
  std::map<Place, Peer> peers_;
  std::map<uint64_t, Ticket> tickets_;
  uint64_t next_ticket_ = 1, next_serial_ = 1;
  uint32_t disk_ = 0;
  Place turn_;  // who was sent something last
  int64_t tick_at_ = 0;
};

}  // namespace ray::transfer
