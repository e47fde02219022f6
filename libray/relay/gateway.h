// A gateway: a job of other nodes on this one. For this node's daemon it is the job's driver; it submits what arrives over
// the lanes of stand-ins, under the ids that the tasks have, and sends back how they end.
//
// Who: relay.cc, one per job, whatever the number of nodes that send tasks of it. Threads: one of its own takes records in
// their order and may wait for room in the store; ended() comes from the runtime's; on_record from the transport, and does
// not wait. Locks: mutex_; below it the runtime's and the host's.
//
// Invariants: every task that was taken is answered once, unless its lane has gone; results wait in the store until the lane
// has room, at most kWindowBytes and one record are under way per lane; nothing is retried here.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "libray/relay/host.h"
#include "libray/relay/incoming.h"
#include "libray/relay/messages.h"
#include "libray/relay/outgoing.h"
#include "libray/runtime/relayed.h"
#include "libray/runtime/types.h"

namespace ray::relay {

class Gateway final : public RelayedUser {
 public:
  // `hello`: see relay_control.h, kJob.
  Gateway(JobId job, std::string session, std::string hello, Host* host);
  ~Gateway() override;
  Status begin();
  const JobId& job() const { return job_; }

  // ---- transport thread, or the relay's
  void on_record(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message);
  void node_gone(const NodeId& node);  // it is dead, or says that the job is over, and another is not
  void end();

  void ended(std::vector<RelayedEnd> ends) override;

 private:
  using LaneKey = std::pair<NodeId, uint64_t>;
  struct Argument {  // that comes in parts
    Incoming value;
    Object* object = nullptr;  // once it is whole; with a handle
    Status status;             // why it is not
  };
  struct Lane {
    LaneKey key;
    std::string resources;
    // The own thread's.
    std::map<std::pair<uint64_t, uint32_t>, Argument> arguments;  // by number and index
    std::pair<uint64_t, uint32_t> filling{};
    uint64_t to_grant = 0;
    // Under mutex_.
    std::unordered_map<uint64_t, uint64_t> tasks;  // number -> ticket
    std::deque<Outgoing> out;
    uint64_t under_way = 0;
    std::string batch;
  };
  struct Entry {
    LaneKey lane;
    uint64_t number = 0, tag = 0;
    std::string about;  // for people: task f (id)
    std::vector<Object*> returns;
    bool submitted = false, is_over = false;
    RelayedEnd end;
  };
  struct Known {
    Function* function = nullptr;
    Status status;
  };

  void run();
  Status start();
  void finish_up();
  void post(std::function<void()> work, uint64_t bytes = 0);
  void take(const NodeId& from, const Record& r);
  void open_lane(const NodeId& from, const Record& r);
  void end_lane(const LaneKey& key);
  void lane_over(const LaneKey& key, const Status& why);
  void define(const NodeId& from, const Record& r);
  void forget_function(const NodeId& from, uint64_t key);
  void open_argument(Lane* lane, const Record& r);
  void fill_argument(Lane* lane, const Record& r);
  void seal(Argument* a);
  void drop_arguments(Lane* lane, uint64_t number, bool all);
  bool task(Lane* lane, const Record& r);
  Status submit(Lane* lane, const Task& t, Function* f, uint64_t ticket);
  Status read_arguments(Lane* lane, const Task& t, std::vector<ray_arg>* args, std::vector<std::vector<ray_bytes>>* buffers);
  void fail(Lane* lane, uint64_t number, const Status& why, const std::string& about);
  void cancel(Lane* lane, const Record& r);
  void recall(Lane* lane);
  void grant(Lane* lane, uint64_t bytes);
  void answer(uint64_t ticket, Entry entry, bool may_wait);
  void answer_late(uint64_t ticket);
  bool gather(const Entry& entry, bool may_wait, Outgoing* out);
  void release(Entry* entry);
  void send_out(const LaneKey& key, Outgoing out);
  void pump(Lane* lane);
  void send(const LaneKey& key, const Record& r);
  Lane* lane(const LaneKey& key);

  const JobId job_;
  const std::string session_, hello_;
  Host* const host_;
  std::thread thread_;
  Runtime* runtime_ = nullptr;
  Status failure_;  // why there is none
  TaskContext context_;  // what is put here for a task has an id that is nobody else's
  uint64_t next_ticket_ = 0;
  std::map<std::pair<NodeId, uint64_t>, Known> functions_;
  std::map<std::pair<NodeId, uint64_t>, std::string> definitions_;  // that are still coming

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> work_;
  uint64_t work_bytes_ = 0;
  bool over_ = false;
  std::map<LaneKey, std::unique_ptr<Lane>> lanes_;  // made and erased by the own thread
  std::unordered_map<uint64_t, Entry> entries_;     // by ticket
};

}  // namespace ray::relay
