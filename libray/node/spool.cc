// See spool.h.
#include "libray/node/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/log.h"

namespace ray::node {

namespace {
constexpr uint64_t kDefaultLimit = uint64_t{2} << 30;
constexpr int64_t kQuietNs = 1'000'000'000;
}  // namespace

uint64_t Spool::limit_from_environment() {
  const char* text = std::getenv("LIBRAY_SPOOL_BYTES");
  char* end = nullptr;
  uint64_t n = text && *text ? std::strtoull(text, &end, 10) : kDefaultLimit;
  return end && *end ? kDefaultLimit : n;
}

bool Spool::failed(const char* what) {
  log(kLogWarning, "node", "journal-spool", "cannot %s what waits for the control store in %s: %s", what, dir_.c_str(),
      std::strerror(errno));
  quiet_until_ = steady_ns() + kQuietNs;
  return false;
}

bool Spool::open() {
  if (file_.valid()) return true;
  file_ = Fd(::open(dir_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file_.valid()) return true;
  std::string path = dir_ + "/journal-spool-XXXXXX";  // a file system without files that have no name
  file_ = Fd(::mkostemp(path.data(), O_CLOEXEC));
  if (file_.valid()) ::unlink(path.c_str());
  return file_.valid() || failed("write");
}

bool Spool::put(std::string_view bytes, uint64_t* at) {
  if (live_ + kept_ + bytes.size() > limit_ || steady_ns() < quiet_until_ || !open()) return false;
  for (size_t done = 0; done < bytes.size();) {
    ssize_t n = ::pwrite(file_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(end_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      failed("write");
      (void)!::ftruncate(file_.get(), static_cast<off_t>(end_));
      return false;
    }
    done += static_cast<size_t>(n);
  }
  *at = end_;
  end_ += bytes.size();
  live_ += bytes.size();
  return true;
}

bool Spool::get(uint64_t at, uint64_t size, std::string* out) {
  out->resize(size);
  for (size_t done = 0; done < size;) {
    ssize_t n = ::pread(file_.get(), out->data() + done, size - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("read");
    done += static_cast<size_t>(n);
  }
  return true;
}

void Spool::drop(uint64_t at, uint64_t size) {
  live_ -= size;
  if (live_ == 0) {
    (void)!::ftruncate(file_.get(), 0);
    end_ = kept_ = 0;
  } else if (::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                         static_cast<off_t>(size)) != 0) {
    kept_ += size;
  }
}

}  // namespace ray::node
