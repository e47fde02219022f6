// How a task ended, on its way back: the records of its answer one after the other, as far as there is room. Pure but for
// the buffers that it holds: those of results that lie in the store stay pinned until they were sent.
//
// Who: gateway.cc, under its mutex.
#pragma once
#include <string>
#include <vector>

#include "libray/relay/messages.h"
#include "ray.h"

namespace ray::relay {

class Outgoing {
 public:
  struct Piece {
    bool given = false, apart = false;
    uint32_t format = 0;
    std::string image;                    // of an error, or:
    ray_buffer buffer = RAY_BUFFER_INIT;  // owned
  };
  Outgoing() = default;
  Outgoing(Outgoing&& o) noexcept { *this = std::move(o); }
  Outgoing& operator=(Outgoing&& o) noexcept;
  ~Outgoing() { clear(); }

  uint64_t number = 0, run_ns = 0;
  int32_t code = 0;
  uint32_t flags = 0;
  std::vector<Piece> pieces;

  void clear();
  void fail(ray_code why, const std::string& message, uint32_t with_flags);  // instead of whatever was there
  // The next record; its views are good until the next call. True: that was the last.
  bool next(uint64_t lane, Record* r);

 private:
  static size_t segments(const Piece& p);
  static std::string_view segment(const Piece& p, size_t i);
  static Value value(const Piece& p);
  size_t piece_ = 0, segment_ = 0;
  uint64_t at_ = 0, in_record_ = 0;
  bool open_ = false;
};

}  // namespace ray::relay
