// What a node's daemon and its relay process (relay_main.cc) say to each other: messages of a SOCK_SEQPACKET pair, which the
// relay has as descriptor 3. Plain values and their MessagePack form. Pure.
//
// The daemon starts at most one relay, and only when it belongs to a cluster. Everything else that the two exchange goes
// over the ordinary channels of processes (protocol.h): a stand-in says hello as the worker of the spawn number that
// kOpen gave it, a gateway says hello as a driver.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::relay {

inline constexpr int kControlFd = 3;
// In the environment of a relay that takes the place of one that ended: other nodes are to hear of it at once.
inline constexpr char kEnvRelayAgain[] = "LIBRAY_RELAY_AGAIN";
inline constexpr size_t kMaxControl = 256 << 10;  // a message; what a job says of itself may be longer and goes in parts

// A node as the relay has to know it.
struct Peer {
  uint32_t index = UINT32_MAX, epoch = 0;
  NodeId id;
  std::string relay;  // where its relay listens: tcp://HOST:PORT; empty: it has none
  std::string name;   // for people
  bool dead = false;
  std::string cause;
};

enum class Control : uint8_t {
  // Daemon -> relay.
  kConfigure = 1,  // peer (this node), session, listen, certificate, ca: the first message
  kPeer,           // peer: new or changed
  kJob,            // id, more, text: a part of what a job says of itself, before the first kOpen that names it: the body of
                   // its driver's hello as this daemon would write it anew: {"language", "commands", "cwd", "env",
                   // "job_name", "ns", "job"}
  kOpen,           // spawn, node, id (job), language, resources: be the worker of that spawn number; it stands
                   // for a worker of that node
  kClose,          // spawn, force: it is wanted no more; force: what it runs is killed
  kJobOver,        // id: nothing of that job will be asked for again
  // Relay -> daemon.
  kListening = 64,  // text: the address that others dial
  kFailed,          // spawn, text: it cannot be opened, or is over: why. Says nothing of tasks: these end by their links
};

struct ControlMessage {
  Control type = Control::kConfigure;
  Peer peer;
  std::string session, listen, certificate, ca;  // kConfigure; the cluster's token lies in the session
  Id id;                                         // of a job
  bool more = false, force = false;
  uint64_t spawn = 0;
  uint32_t node = UINT32_MAX;
  int32_t language = 0;
  std::string resources;  // as in ray_task_options::resources_msgpack
  std::string text;
};

std::string encode(const ControlMessage& m);
Status decode(std::string_view bytes, ControlMessage* out);

}  // namespace ray::relay
