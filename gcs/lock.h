// One process per shard: an advisory lock on "gcs-<shard>.lock", held as long as the object lives and gone
// with the process. Taken by a shard before it opens its files, and by tools that change them.
#pragma once
#include <string>

#include "libray/base/shm.h"
#include "libray/base/status.h"

namespace ray::gcs {

class ShardLock {
 public:
  static Result<ShardLock> take(const std::string& dir, uint32_t shard);

 private:
  Fd fd_;
};

}  // namespace ray::gcs
