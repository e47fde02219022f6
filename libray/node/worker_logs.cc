// See worker_logs.h.
#include "libray/node/worker_logs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "libray/base/clock.h"
#include "libray/node/spawn.h"
#include "libray/wire/msgpack.h"

namespace ray::node {
namespace {
constexpr int64_t kTrimEveryNs = 10'000'000'000;
constexpr uint64_t kBlock = 4096;
constexpr uint64_t kDefaultMaxBytes = 128ull << 20;
constexpr size_t kMaxEnded = 500;  // workers whose files are kept after their end
constexpr off_t kTail = 2048;
constexpr size_t kMaxLine = 400;
constexpr const char* kSuffixes[] = {".out", ".err"};
}  // namespace

void WorkerLogs::configure(const std::string& folder) {
  folder_ = folder;
  const char* bytes = std::getenv("LIBRAY_LOG_MAX_BYTES");
  max_bytes_ = bytes ? std::strtoull(bytes, nullptr, 10) : 0;
  if (!max_bytes_) max_bytes_ = kDefaultMaxBytes;
}

Result<Fd> open_log_or_null(const std::string& path, std::string* why) {
  auto fd = open_log(path);
  if (fd.ok() || errno == EMFILE || errno == ENFILE || errno == ENOMEM) return fd;
  *why = fd.status().message();
  Fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!null.valid()) return fd;
  return null;
}

std::string last_line(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat st;
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) return "";
  std::string text(kTail, '\0');
  ssize_t n = ::pread(fd.get(), text.data(), text.size(), std::max<off_t>(0, st.st_size - kTail));
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  text.erase(0, text.rfind('\n') + 1);  // nothing when there is no other line
  if (text.size() > kMaxLine) text.resize(kMaxLine);
  bool utf8 = wire::is_utf8(text);  // it goes to terminals and into tables
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f || (c < 0 && !utf8)) c = '?';
  return text;
}

uint64_t room_below(const std::string& folder) {
  struct statvfs s;
  if (::statvfs(folder.c_str(), &s) != 0 || s.f_blocks == 0) return UINT64_MAX;
  return static_cast<uint64_t>(::geteuid() == 0 ? s.f_bfree : s.f_bavail) * s.f_frsize;
}

Status WorkerLogs::open(uint64_t spawn, const JobId& job, Fd* out, Fd* err, std::string* why) {
  std::string base = "worker-" + std::to_string(spawn) + "-" + job.hex().substr(0, 8);
  Fd* fds[] = {out, err};
  for (int i = 0; i < 2; ++i) {
    auto fd = open_log_or_null(folder_ + "/" + base + kSuffixes[i], why);
    if (!fd.ok()) return fd.status();
    *fds[i] = std::move(*fd);
  }
  if (live_.empty()) trim_at_ = steady_ns() + kTrimEveryNs;
  live_[spawn] = base;
  return Status();
}

void WorkerLogs::started(uint64_t spawn, int pid) {
  auto it = live_.find(spawn);
  if (it == live_.end() || pid <= 0) return;
  std::string base = it->second + "-" + std::to_string(pid);
  for (const char* suffix : kSuffixes)
    (void)::rename((folder_ + "/" + it->second + suffix).c_str(),
                   (folder_ + "/" + base + suffix).c_str());
  it->second = base;
}

std::string WorkerLogs::ended(uint64_t spawn) {
  auto it = live_.find(spawn);
  if (it == live_.end()) return "";
  bool left = false;
  std::string err;
  for (const char* suffix : kSuffixes) {
    std::string path = folder_ + "/" + it->second + suffix;
    struct stat st;
    if (::stat(path.c_str(), &st) != 0) continue;
    if (st.st_size == 0) {
      ::unlink(path.c_str());
      continue;
    }
    left = true;
    if (suffix == kSuffixes[1]) err = "logs/" + it->second + suffix;
  }
  if (left) ended_.push_back(it->second);
  live_.erase(it);
  for (; ended_.size() > kMaxEnded; ended_.pop_front())
    for (const char* suffix : kSuffixes)
      ::unlink((folder_ + "/" + ended_.front() + suffix).c_str());
  return err;
}

void WorkerLogs::trim(int64_t now) {
  if (live_.empty() || now < trim_at_) return;
  trim_at_ = now + kTrimEveryNs;
  for (const auto& [spawn, base] : live_)
    for (const char* suffix : kSuffixes)
      (void)punch_beginning(folder_ + "/" + base + suffix, max_bytes_);
}

// Half of the limit stays, so that a busy worker's file is not punched at every look.
bool punch_beginning(const std::string& path, uint64_t max_bytes) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) return false;
  if (static_cast<uint64_t>(st.st_blocks) * 512 <= max_bytes) return false;
  uint64_t end = (static_cast<uint64_t>(st.st_size) - max_bytes / 2) / kBlock * kBlock;
  Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  return fd.valid() && ::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                                   static_cast<off_t>(end)) == 0;
}

}  // namespace ray::node
