// The daemon behind its up rings: real node, real core and control store
// tables; no processes, shards or timers. Two drivers and three workers write what the input
// says.
//
// Input: steps of [who][type][flags][size] and `size` bytes of payload. Types above the protocol's
// are events of the machine: a pass over the rings, the scheduler, answers of the control store, a
// death. An id whose first byte is below 16 stands for one of 16 that the processes have in common,
// so that records meet each other. After each step the cores' own invariants are checked.
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>

#include "fuzz/fuzz.h"
#include "gcs/ops.h"
#include "gcs/tables.h"
#include "libray/base/log.h"
#include "libray/node/node.h"

namespace ray::node {
namespace {

constexpr uint32_t kDrivers = 2, kProcesses = 5;  // indexes 1..5: drivers first

// A control store that answers at once, from the real tables.
class Store : public gcs::Client {
 public:
  uint32_t shards() const override { return 1; }
  void append_lineage(uint32_t, std::string, uint32_t, Appended done) override { done(Status(), 0); }
  void append_coded(uint32_t, std::string, uint64_t, uint32_t, Appended done) override { done(Status(), 0); }
  uint64_t lineage_backlog() const override { return 0; }
  void call(uint32_t, uint32_t op, std::string args, Answered done) override {
    gcs::Request r;
    r.client = 1;
    r.seq = r.ack_below = ++seq_;
    r.op = op;
    r.args = args;
    gcs::Outcome o = tables_.step(r, static_cast<int64_t>(seq_));
    tables_.commit();
    if (o.kind != gcs::Outcome::kDone) return done(error(RAY_UNAVAILABLE, "not in RAM"), "");
    done(o.code == RAY_OK ? Status() : Status(static_cast<ray_code>(o.code), o.text), o.answer);
  }
  void subscribe(uint32_t, const std::string&, const std::string&, Changed) override {}
  void reconnect(uint32_t) override {}

 private:
  gcs::Tables tables_;
  uint64_t seq_ = 0;
};

}  // namespace

struct NodeFuzz {
  Node node;
  Fd peers[kProcesses + 1];
  uint64_t next_spawn = 1'000'000;  // none that the core gives
  static constexpr uint32_t kJob = 1;  // of the first driver: the workers'

  static NodeOptions options() {
    NodeOptions o;
    o.parent_pid = 1;  // nobody here: no process may end the node
    o.num_cpus = 2;
    o.max_workers = 8;
    return o;
  }
  // The journal pump is a thread: one for all inputs.
  static std::unique_ptr<JournalPump>& pump() {
    static auto* page = new wire::NodePage{};
    static auto* store = new Store;
    static auto* pump = new std::unique_ptr<JournalPump>(
        std::make_unique<JournalPump>(store, page, [](uint32_t) {}));
    return *pump;
  }
  NodeFuzz() : node(options()) {
    set_log_handler([](int32_t, const char*, const char*, const char*, void*) {}, kLogError,
                    nullptr);
    node.gcs_ = std::make_unique<Store>();
    for (Fd* shown : {&node.page_fd_, &node.doorbell_}) *shown = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    node.pump_ = std::move(pump());
    for (uint32_t i = 1; i <= kProcesses; ++i) admit(i);
  }
  ~NodeFuzz() { pump() = std::move(node.pump_); }
  static JobId job_id(uint32_t index) {
    JobId id{};
    id.b[0] = static_cast<uint8_t>(index);
    return id;
  }
  void admit(uint32_t index) {
    auto p = std::make_unique<Node::Process>();
    p->index = index;
    p->driver = index <= kDrivers;
    p->channel = *Channel::create(index, 1);  // its rings stay empty: records are handed over directly
    int fds[2];
    FUZZ_CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    p->socket = Fd(fds[0]);
    peers[index] = Fd(fds[1]);
    std::erase(node.free_indexes_, index);
    if (p->driver) {
      node.processes_[index] = std::move(p);
      node.live_.insert(index);
      node.came(node.process(index), Node::Job{.id = job_id(index)});
      return;
    }
    // As if the scheduler had asked for it.
    NodeCore::Spawn& s = node.core_.spawns_[next_spawn];
    p->spawn = s.number = next_spawn++;
    s.pool = {RAY_LANG_NATIVE, kJob};
    if (!node.core_.jobs_.count(kJob)) return void(node.core_.spawns_.erase(p->spawn));  // it is over
    ++node.core_.jobs_.at(kJob).spawns;
    Node::Spawn& here = node.spawns_[p->spawn];
    here.number = p->spawn;
    here.pool = s.pool;
    here.process = index;
    node.processes_[index] = std::move(p);
    node.live_.insert(index);
    node.came(node.process(index), Node::Job());
  }

  void up(uint32_t index, uint16_t type, uint16_t flags, const std::string& payload) {
    Node::Process* p = node.process(index);
    if (!p || p->closing) return;
    Status s = node.handle_up(p, type, flags, payload);
    if (!s.ok()) node.cut_off(p, s.message());
  }
  void event(uint32_t index, uint32_t what) {
    switch (what % 4) {
      case 0: node.step(event::PassBegins{}); return node.step(event::PassEnds{});
      case 1: return node.step(event::Decide{});
      case 2: node.mailbox_->run(); return node.timers(1);
      case 3: {  // buried as its pidfd would have it; another may take its place
        if (!node.process(index)) return admit(index);
        const Node::Process& p = *node.process(index);
        return p.driver ? node.driver_gone(index, -1, wire::kDeathCrash) : node.bury(p.spawn);
      }
    }
  }
  void listen() {  // the peers read what they are sent
    node.flush_outboxes();
    char bytes[1 << 16];
    for (Fd& peer : peers)
      for (std::vector<Fd> fds; peer.valid();) {
        auto n = recv_with_fds(peer.get(), bytes, sizeof bytes, &fds);
        if (!n.ok() || *n == 0) break;
      }
  }
  void check() {
    const std::string broken = node.core_.check();
    if (!broken.empty()) std::fprintf(stderr, "invariant: %s\n", broken.c_str());
    FUZZ_CHECK(broken.empty());
  }
};

namespace {

// Replaces short names by the ids that they stand for.
void settle_id(std::string* payload, size_t at) {
  if (at + kIdSize > payload->size() || static_cast<uint8_t>((*payload)[at]) >= 16) return;
  auto n = static_cast<uint32_t>((*payload)[at]);
  TaskId task = child_task(origin_of(root_task(Id{})), n / 4);
  Id id = n % 4 == 0   ? task
          : n % 4 == 1 ? return_object(task, 0)
          : n % 4 == 2 ? put_object(task, 1)
                       : actor_of(task);
  std::memcpy(payload->data() + at, id.b, kIdSize);
}

void settle_ids(uint16_t type, std::string* payload) {
  size_t first = 0, list = SIZE_MAX;
  switch (type) {
    case wire::kUpObjShare:
    case wire::kUpObjReady: list = sizeof(wire::UpObj); break;
    case wire::kUpLeaseWant: first = offsetof(wire::UpLeaseWant, example); break;
    case wire::kUpObjHold:
    case wire::kUpObjRelease:
    case wire::kUpObjResolve:
    case wire::kUpActorCreate:
    case wire::kUpActorConnect:
    case wire::kUpActorKill:
    case wire::kUpActorReady:
    case wire::kUpActorExit: break;
    default: return;
  }
  settle_id(payload, first);
  for (; list < payload->size(); list += kIdSize) settle_id(payload, list);
}

}  // namespace
}  // namespace ray::node

FUZZ_TARGET(node_up) {
  using namespace ray;
  node::NodeFuzz fuzz;
  for (int steps = 0; input.size() >= 4 && steps < 200; ++steps) {
    auto byte = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
    uint32_t who = 1 + byte(0) % node::kProcesses;
    uint16_t type = byte(1) % 32, flags = byte(2) & 1;
    size_t size = std::min<size_t>(byte(3), input.size() - 4);
    std::string payload(input.substr(4, size));
    input.remove_prefix(4 + size);
    if (type > wire::kUpError) {
      fuzz.event(who, type);
    } else {
      node::settle_ids(type, &payload);
      fuzz.up(who, type, flags, payload);
    }
    fuzz.listen();
    fuzz.check();
  }
}
