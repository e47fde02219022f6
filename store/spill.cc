// See spill.h.
#include "store/spill.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "libray/base/fault.h"
#include "store/layout.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace ray::store {

namespace {
constexpr uint64_t kFileSpace = uint64_t{1} << 50;
constexpr uint64_t kBlock = 4096;
constexpr uint64_t kPiece = 1 << 20;  // of a read
}  // namespace

SpillFile::SpillFile(std::string dir, uint64_t limit)
    : dir_(std::move(dir)), limit_(limit), space_(kFileSpace) {}

Status SpillFile::open() {
  if (fd_.valid()) return Status();
  ::mkdir(dir_.c_str(), 0700);
  Fd fd(::open(dir_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) {  // file systems without unnamed files
    std::string path = dir_ + "/spill-" + std::to_string(::getpid());
    fd = Fd(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
    if (!fd.valid())
      return errno_error(RAY_STORE_FULL, "cannot make a spill file in '%s'", dir_.c_str());
    ::unlink(path.c_str());
  }
  fd_ = std::move(fd);
  return Status();
}

Result<uint64_t> SpillFile::reserve(uint64_t bytes) {
  bytes = round_up(bytes, kBlock);
  if (limit_ && used_ + bytes > limit_)
    return error(RAY_STORE_FULL, "the spill limit of %llu bytes is reached",
                 static_cast<unsigned long long>(limit_));
  Status s = open();
  if (!s.ok()) return s;
  auto run = space_.take_cold(bytes);
  if (!run) return error(RAY_STORE_FULL, "the spill file in '%s' is fragmented", dir_.c_str());
  used_ += bytes;
  return run->offset;
}

void SpillFile::discard(uint64_t at, uint64_t bytes) const {
  // Where holes cannot be punched the blocks are reused by later runs all the same.
  (void)::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                    static_cast<off_t>(round_up(bytes, kBlock)));
}

void SpillFile::release(uint64_t at, uint64_t bytes) {
  bytes = round_up(bytes, kBlock);
  used_ -= bytes;
  space_.give({at, bytes}, false);
}

Status SpillFile::write(std::vector<SpillPiece>* pieces) const {
  for (auto& p : *pieces) {
    if (RAY_FAULT_FAILS("store.spill.write"))
      return error(RAY_STORE_FULL, "cannot spill to '%s': injected write error", dir_.c_str());
    for (uint64_t done = 0; done < p.size;) {
      ssize_t n =
          ::pwrite(fd_.get(), p.data + done, p.size - done, static_cast<off_t>(p.at + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return errno_error(RAY_STORE_FULL, "cannot spill to '%s'", dir_.c_str());
      done += static_cast<uint64_t>(n);
    }
    p.checksum = XXH3_64bits(p.data, p.size);
  }
  return Status();
}

Status SpillFile::read(uint64_t at, uint64_t size, uint64_t checksum, uint8_t* out,
                       const std::function<bool()>& step) const {
  if (RAY_FAULT_FAILS("store.restore.read"))
    return error(RAY_OBJECT_LOST, "cannot read a spilled object from '%s': injected", dir_.c_str());
  for (uint64_t done = 0; done < size;) {
    ssize_t n = ::pread(fd_.get(), out + done, std::min(size - done, kPiece), static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return errno_error(RAY_OBJECT_LOST, "cannot read a spilled object from '%s'", dir_.c_str());
    done += static_cast<uint64_t>(n);
    RAY_FAULT("store.restore.piece");
    if (step && !step()) return Status(RAY_CANCELLED, "nobody waits for this object");
  }
  if (XXH3_64bits(out, size) != checksum)
    return error(RAY_OBJECT_LOST, "a spilled object in '%s' is damaged: its checksum differs",
                 dir_.c_str());
  return Status();
}

}  // namespace ray::store
