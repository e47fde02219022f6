// The control store's client: how a node daemon writes lineage and asks the shards. NNG req/rep
// underneath (ipc:// or tcp://), MessagePack frames, requests pipelined and resent until answered;
// every request carries (client, seq), so that a resend is harmless.
//
// Threads: calls from any thread; callbacks on NNG's threads: hand over and return.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::gcs {

struct ClientOptions {
  std::vector<std::string> urls;  // one per shard; the slot map is slot % shards until shards split
  std::string token;
  NodeId node;
  uint32_t node_epoch = 1;  // incarnation of this node's journal
  int64_t timeout_ns = -1;  // of call(): then RAY_TIMED_OUT, and nobody knows whether it happened
  int64_t watch_ns = 5'000'000'000;  // between two looks at a shard on which something waits
  int64_t ping_ns =
      10'000'000'000;  // then it is dialled again; a shard busy with its disk may take long
};

class Client {
 public:
  static Result<std::unique_ptr<Client>> connect(const ClientOptions& options);
  virtual ~Client() = default;
  virtual uint32_t shards() const = 0;
  uint32_t shard_of_slot(uint32_t slot) const { return slot % shards(); }

  // Appends `n` lineage records (RecordHeader + payload each, padded to 8, back to back) to this
  // node's journal at that shard. Calls for one shard are kept in order; `done` gets the highest
  // committed sequence number of this node at that shard (the watermark of protocols.md 2.7).
  using Appended = std::function<void(Status, uint64_t committed)>;
  // Batches are joined while earlier ones are under way, and kept (and sent again) until committed:
  // `done` fails only when this client is closed (RAY_CANCELLED), when it is fenced off by a later epoch of
  // this node (RAY_CONFLICT), or when the shard calls it malformed (RAY_INVALID_ARGUMENT): to try again is of
  // no use, and what follows is not held up. At most 32 MiB per call.
  virtual void append_lineage(uint32_t shard, std::string records, uint32_t n, Appended done) = 0;
  // The same for a stream that a lineage::DeltaEncoder made of `raw_size` bytes of records.
  virtual void append_coded(uint32_t shard, std::string stream, uint64_t raw_size, uint32_t n, Appended done) = 0;
  // Bytes of lineage taken and not yet committed, all shards: who appends slows down by it.
  virtual uint64_t lineage_backlog() const = 0;

  // One operation on a table (gcs/ops.h names them); args and answer are MessagePack arrays. Some
  // failures have an answer too.
  using Answered = std::function<void(Status, std::string answer)>;
  virtual void call(uint32_t shard, uint32_t op, std::string args, Answered done) = 0;
  // Pub-sub after commit: every later change of keys with this prefix in a table, at least once,
  // per key in commit order; survives a restart of the shard. It begins with the values that are
  // there. A subscriber that lags far behind gets the last value of each key; an empty value = the
  // key is gone.
  using Changed = std::function<void(uint64_t sn, std::string key, std::string value)>;
  virtual void subscribe(uint32_t shard, const std::string& table, const std::string& prefix,
                         Changed changed) = 0;

  // The shard was started again: everything unanswered goes over a new connection at once. Without
  // this call the client finds out by itself, in up to 15 s. Does not wait.
  virtual void reconnect(uint32_t shard) = 0;
};

}  // namespace ray::gcs
