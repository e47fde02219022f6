// What a node pulls from others: which requests go on, which chunk is asked of whom. Pure: events in, actions out; driven
// by tests/transfer, by no daemon yet.
//
// A request names copies that are to be here and pinned all at the same time: the inputs of a task, or what a get waits
// for. It is admitted when all of them fit the room that the store grants, all or none, and holds that room until it is
// released; so no two requests ever hold half of what they need and wait for each other. The queue is ordered by arrival,
// where a rank counts as so much later: whoever waits is overtaken for a bounded time only. What does not fit yet may be
// passed by smaller ones while it has waited less than `patience_ns`, then the room is kept for it.
//
// A copy comes in chunks, from all who have some of it, over all connections to them, as many bytes at a time as the
// window of a connection allows. What a source did not bring (its connection broke, it died, it refused, it is silent)
// is asked of another; what is here stays. Nothing is given up because of time: a copy is lost when every place that was
// known, and that its home named when it was asked for more, is dead or has said that it has no such copy.
//
// Invariants: the sizes of all copies of admitted requests together are within the room, but for what is pinned and
// ready when the room shrinks; a chunk is asked once at a time, but for the silent; no connection has more than its
// window asked for. Any message may come twice, late, or never.
#pragma once
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libray/transfer/messages.h"

namespace ray::transfer {

enum class Rank : uint8_t { kNext, kGet, kAhead };  // inputs of tasks that are next, gets, inputs of tasks that are later

struct Want {
  Copy copy;
  uint64_t size = kUnknownSize;
  std::vector<Place> places;  // that are said to have it
};
struct Request {
  uint64_t number = 0;  // of the driver, never used twice
  Rank rank = Rank::kGet;
  std::vector<Want> wants;
};

struct PullOptions {
  uint32_t chunk = 1u << 20;         // the same on all nodes
  uint32_t inline_max = 64u << 10;   // what may come from who is asked for an object of unknown size; at most a chunk
  uint64_t window = 4u << 20;        // bytes asked for over one connection that have not come
  int64_t age_ns = 1'000'000'000;    // so much later a request of the next rank seems to have come
  int64_t patience_ns = 500'000'000; // smaller ones pass one that does not fit for so long
  int64_t silent_ns = 3'000'000'000; // without a word a connection's chunks are asked elsewhere
  int64_t retry_ns = 100'000'000;    // who was busy is asked again; also how often tick() looks at what moves
};

struct PullAction {
  enum Kind {
    kPin,       // copy: answered by pinned() or absent(). Each pinned() is a pin, each kUnpin takes one away
    kCreate,    // copy, size: room for its bytes. Also a started() for the server
    kWrite,     // copy, size, chunk, message.bytes: also a got() for the server
    kSeal,      // copy: its bytes are all there; it is pinned from then on. Also a complete() for the server
    kUnpin,     // copy
    kAbandon,   // copy: what was created and not sealed goes. Also a gone() for the server
    kSend,      // place, channel, message
    kLocate,    // copy, round: ask its home who has it; answered by located()
    kRefused,   // copy, place: it has no such copy, whatever its home thinks
    kReady,     // request: all is here and pinned until release()
    kLost,      // request, copy: no place has it any more; the request is over
    kTooLarge,  // request: never fits; it is over
  } kind;
  Copy copy;
  uint64_t request = 0, size = 0, round = 0;
  uint32_t chunk = 0, channel = 0;
  Place place;
  Message message;
};
using PullActions = std::vector<PullAction>;

class Planner {
 public:
  // `room`: bytes that may be here for requests; `most`: what that can become when all else has gone.
  Planner(Place self, uint64_t room, uint64_t most, const PullOptions& options = {});

  // ---- whoever needs objects
  void request(const Request& r, int64_t now, PullActions* out);
  void raise(uint64_t request, Rank rank, int64_t now, PullActions* out);  // its task is next
  // Its task has ended, or nobody wants it any more; at any time.
  void release(uint64_t request, int64_t now, PullActions* out);

  // ---- the store
  void room(uint64_t bytes, uint64_t most, int64_t now, PullActions* out);
  void pinned(const Copy& copy, uint64_t size, int64_t now, PullActions* out);
  void absent(const Copy& copy, int64_t now, PullActions* out);
  // What was to be created was not, or could not be written: all begins anew once there is room.
  void failed(const Copy& copy, int64_t now, PullActions* out);

  // ---- other nodes
  void location(const Copy& copy, uint64_t size, Place place, int64_t now, PullActions* out);
  void location_gone(const Copy& copy, Place place, int64_t now, PullActions* out);
  void located(const Copy& copy, uint64_t round, uint64_t size, const std::vector<Place>& places, int64_t now,
               PullActions* out);
  void up(Place place, uint32_t channel, int64_t now, PullActions* out);
  void down(Place place, uint32_t channel, int64_t now, PullActions* out);  // what was under way is lost
  void died(Place place, int64_t now, PullActions* out);                     // the cluster says so
  // kChunk, kDeny, kHave, kPeers and kTurn; others are ignored.
  void message(Place from, uint32_t channel, const Message& m, int64_t now, PullActions* out);
  void tick(int64_t now, PullActions* out);
  int64_t deadline() const { return moving_ > 0 || !queue_.empty() ? tick_at_ : INT64_MAX; }

  uint64_t used() const { return used_; }  // of the room
  size_t requests() const { return wishes_.size(); }
  size_t pulls() const { return pulls_.size(); }
  uint64_t asked(Place place, uint32_t channel) const;  // bytes that have not come
  // Requests wait, nothing moves, and all that holds room is ready: only a release or the store can help.
  bool stuck() const { return !queue_.empty() && moving_ == 0 && used_ > 0; }

 private:
  struct Source {
    bool complete = false;
    bool told = false;     // it said which chunks it has, or that it has none
    bool met = false;      // it was asked something, so it is told when this is over
    uint8_t refusals = 0;  // since it was last said to have it; the second one counts, see located()
    int64_t busy_until = 0;
    Bits have;
  };
  enum class State : uint8_t { kQueued, kPinning, kMoving, kHere };
  struct Pull {
    Copy copy;
    uint64_t size = kUnknownSize, reserved = 0;
    State state = State::kQueued;
    bool created = false, locating = false;
    Rank rank = Rank::kAhead;
    uint32_t users = 0;            // admitted requests
    std::set<uint64_t> requests;   // all that name it
    Bits have{1}, asked{1};
    uint64_t missing = 1, n_asked = 0;
    std::map<Place, Source> sources;
    uint64_t served = 0, order = 0;  // its place among those that want chunks
    bool hungry = false;
    uint64_t round = 0;
    int64_t locate_at = 0, nudge_at = 0;
  };
  struct Wish {  // a request
    Request what;
    int64_t key = 0, since = 0;
    bool admitted = false, ready = false;
    size_t absent = 0;  // copies that are not here
  };
  struct Asked {
    int64_t at;
    uint32_t bytes;
  };
  struct Line {  // a connection
    uint64_t flying = 0;
    std::map<std::pair<Copy, uint32_t>, Asked> asks;
    int64_t heard = 0, slow_until = 0, slow_ns = 0;
  };
  using Lines = std::map<uint32_t, Line>;

  // ---- planner.cc: requests and room
  Pull* find(const Copy& copy);
  Pull* moving(const Copy& copy);
  uint64_t cost(const Pull& p) const { return p.size == kUnknownSize ? options_.inline_max : p.size; }
  void settle(int64_t now, PullActions* out);
  void admit_all(int64_t now, PullActions* out);
  void admit(Wish* w, int64_t now, PullActions* out);
  void withdraw(Wish* w, PullActions* out);
  void shrink(PullActions* out);
  void leave(Pull* p, PullActions* out);
  void arrived(Pull* p, PullActions* out);
  void end(uint64_t request, PullActions* out);
  void lose(Pull* p, PullActions* out);
  bool learn(Pull* p, uint64_t size, PullActions* out);
  void withdraw_users(Pull* p, PullActions* out);

  // ---- pulls.cc: sources and chunks
  void start_moving(Pull* p, int64_t now, PullActions* out);
  void stop_moving(Pull* p, Why why, PullActions* out);
  void create(Pull* p, PullActions* out);
  void put_hungry(Pull* p);
  void leave_hungry(Pull* p);
  Source* know(Pull* p, Place place);
  void meet(Pull* p, Place place, Source* s, PullActions* out);
  void meet_peers(Pull* p, const std::vector<Place>& places, PullActions* out);
  void refuse(Pull* p, Place place, PullActions* out);
  bool enough(const Pull& p) const;
  void judge(Pull* p, int64_t now, PullActions* out);
  void locate(Pull* p, int64_t now, PullActions* out);
  void forget_ask(Line* line, const Copy& copy, uint32_t chunk);
  void withdraw_asks(Line* line);
  void on_chunk(Pull* p, Place from, const Message& m, int64_t now, PullActions* out);
  void on_deny(Pull* p, Place from, const Message& m, int64_t now, PullActions* out);
  bool on_have(Pull* p, Place from, const Message& m, PullActions* out);
  void pump(int64_t now, PullActions* out);
  bool ask_one(Place place, uint32_t channel, Line* line, int64_t now, PullActions* out);
  uint32_t choose(const Pull& p, const Source& s) const;
  void nudge(Pull* p, int64_t now, PullActions* out);
  void say(Place place, uint32_t channel, Message m, PullActions* out) const;

  const Place self_;
  const PullOptions options_;
  uint64_t room_, most_, used_ = 0;
  std::map<Copy, Pull> pulls_;
  std::map<uint64_t, Wish> wishes_;
  std::set<std::pair<int64_t, uint64_t>> queue_;                   // (key, request) of those that wait
  std::map<std::pair<uint64_t, uint64_t>, Copy> hungry_;           // (served, order): chunks neither here nor asked
  std::map<Place, Lines> lines_;
  std::set<Place> dead_;
  uint64_t clock_ = 0, orders_ = 0;  // of hungry_
  size_t moving_ = 0;
  int64_t tick_at_ = 0;
};

}  // namespace ray::transfer
