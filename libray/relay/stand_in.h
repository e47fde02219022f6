// A stand-in: a worker of this node, as its daemon and clients see it, whose tasks run on another node. It takes them from
// its links as any worker does, sends them to that node's gateway over one lane, and ends them with what comes back.
//
// Who: relay.cc, one per spawn number that the daemon gave. Threads: `run` starts the runtime, takes tasks and ends it all;
// `answer` ends tasks; on_record and end come from the transport and the relay's main thread and do not wait; cancel and
// give_back from the runtime's own threads. Locks: life_mutex_, the runtime's, mutex_, the host's, in this
// order.
//
// Invariants: at most kWindowTasks tasks are taken and not ended, at most kWindowBytes and one record of them are under way;
// a task that was sent and not answered is dropped without an answer when this ends, so that its client counts an attempt;
// one that cannot travel goes back to its client unexecuted.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "libray/relay/host.h"
#include "libray/relay/incoming.h"
#include "libray/relay/messages.h"
#include "libray/runtime/relayed.h"
#include "libray/runtime/worker.h"
#include "ray.h"

namespace ray::relay {

struct StandInOptions {
  uint64_t spawn = 0;  // also the number of its lane
  NodeId node;         // where its tasks run
  JobId job;
  int32_t language = 0;
  std::string session;  // of this node
};

class StandIn final : public StandInUser {
 public:
  StandIn(StandInOptions options, Host* host) : options_(std::move(options)), host_(host) {}
  ~StandIn() override;
  const StandInOptions& options() const { return options_; }
  bool opened() const { return opened_; }

  // ---- transport thread
  void on_record(const Record& r, const std::shared_ptr<const std::string>& message);

  // ---- any thread
  // What runs over there is killed. Of one whose lane never opened nothing follows: it has no thread.
  void end(const std::string& why);
  void leave();  // takes nothing more, ends when what it has is answered

  // ---- StandInUser
  void cancel(uint64_t number, uint32_t flags) override;
  void give_back() override;

 private:
  struct Item {
    Record record;
    std::shared_ptr<const std::string> message;  // backs its views
  };

  void run();
  Status start();
  void take();
  bool await_room();
  bool has_room();
  void forward(Execution* e);
  bool forward_arguments(Execution* e, uint64_t number, Task* task);
  bool send_parts(const Value& v, uint64_t number, uint32_t index);
  void append(const Record& r);
  void flush();
  void refuse_actor(Execution* e);
  void unlane();
  void finish_up();

  void answer();
  void take_record(const Record& r);
  void open_result(const Record& r);
  void fill_result(const Record& r);
  void done(const Done& d);
  Status set_results(Execution* e, const Done& d);
  Status set_result(Execution* e, uint64_t number, uint32_t index, const Value& v);
  void returned(const Record& r);
  Execution* take_task(uint64_t number, bool remove);
  void grant(uint64_t bytes);
  void forget_coming(uint64_t number);

  const StandInOptions options_;
  Host* const host_;
  std::mutex life_mutex_;  // of the next three; taken before mutex_
  bool leaves_ = false;
  Runtime* runtime_ = nullptr;
  WorkerSide* side_ = nullptr;
  std::thread thread_, answers_;
  std::atomic<bool> opened_{false};

  // The taking thread's.
  std::string batch_;
  uint64_t next_ = 0, batched_ = 0;  // numbers: the last given, the last in batch_

  // The answering thread's.
  std::map<std::pair<uint64_t, uint32_t>, Incoming> coming_;  // by number and index
  std::pair<uint64_t, uint32_t> filling_{};
  uint64_t to_grant_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_, more_;
  bool over_ = false, ends_ = false, answered_ = false;
  std::string why_;
  uint64_t under_way_ = 0;  // counted bytes that the other side is not done with
  uint64_t taken_ = 0, sent_ = 0;  // the last numbers that were given, and sent
  std::vector<std::pair<uint64_t, uint32_t>> early_;  // cancellations of what is not sent yet
  bool recall_ = false;                               // with the next that is sent
  std::unordered_map<uint64_t, Execution*> tasks_;
  std::deque<Item> inbox_;
  uint64_t inbox_bytes_ = 0;
};

}  // namespace ray::relay
