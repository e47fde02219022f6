// NNG in front of a shard: a rep0 socket with as many contexts as requests are in progress.
//
// Threads: requests arrive on NNG's threads; reply() from any. Invariants: every request that was handed
// over gets exactly one reply; a frame that is malformed or shows the wrong token is answered here and
// never handed over. Bytes of a request stay valid until its reply.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "gcs/frame.h"
#include "libray/base/status.h"

namespace ray::gcs {

struct Slot;
struct Incoming {
  Slot* slot = nullptr;
  uint32_t pipe = 0;  // the connection it came from
  Request request;
};

class Server {
 public:
  struct Options {
    std::string url, token;
    std::function<void(const Incoming&)> request;  // called on NNG threads: queue and return
    std::function<void(uint32_t pipe)> gone;       // a connection ended
  };
  static Result<std::unique_ptr<Server>> listen(Options options);
  virtual ~Server() = default;  // waits shortly for replies that are being sent
  virtual void reply(Slot* slot, int32_t code, std::string_view text, std::string_view answer) = 0;
};

}  // namespace ray::gcs
