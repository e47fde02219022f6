// See lock.h.
#include "gcs/lock.h"

#include <fcntl.h>
#include <sys/file.h>

namespace ray::gcs {

Result<ShardLock> ShardLock::take(const std::string& dir, uint32_t shard) {
  std::string path = strprintf("%s/gcs-%u.lock", dir.c_str(), shard);
  ShardLock lock;
  lock.fd_ = Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.fd_.valid()) return errno_error(RAY_UNAVAILABLE, "cannot make %s", path.c_str());
  if (::flock(lock.fd_.get(), LOCK_EX | LOCK_NB) != 0)
    return error(RAY_WRONG_STATE, "gcs shard %u in %s is running", shard, dir.c_str());
  return lock;
}

}  // namespace ray::gcs
