// Lineage that a slow or dead control store has not taken yet, on disk: one file in the session directory without a
// name, so that nothing of it stays behind. What is in it is lost with the daemon, like what is in its memory.
//
// Who calls it: the journal pump's thread alone. Invariants: at most `limit` bytes are in use; bytes that were dropped
// go back to the file system at once (a hole), all of them when nothing is left. A disk that is full or fails refuses
// what is put, and the caller keeps it.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "libray/base/shm.h"

namespace ray::node {

class Spool {
 public:
  Spool(std::string dir, uint64_t limit) : dir_(std::move(dir)), limit_(limit) {}
  // LIBRAY_SPOOL_BYTES; 2 GiB when that is not set. 0 = none.
  static uint64_t limit_from_environment();
  bool put(std::string_view bytes, uint64_t* at);
  bool get(uint64_t at, uint64_t size, std::string* out);
  void drop(uint64_t at, uint64_t size);
  uint64_t bytes() const { return live_; }

 private:
  bool open();
  bool failed(const char* what);

  std::string dir_;
  uint64_t limit_, live_ = 0, end_ = 0;
  uint64_t kept_ = 0;  // dropped, and still on disk: this file system has no holes
  Fd file_;
  int64_t quiet_until_ = 0;  // after a failure: not asked again before
};

}  // namespace ray::node
