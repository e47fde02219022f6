// See session.h.
#include "libray/session/session.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "libray/base/proc.h"
#include "libray/base/trust.h"
#include "libray/wire/protocol.h"

namespace ray::session {
namespace {

// Room for "/gcs-1023.sock" within sun_path (108 bytes).
constexpr size_t kMaxSessionPath = 92;
constexpr char kLockFile[] = "lock";
constexpr char kPrefix[] = "session-";
constexpr int64_t kBeingMadeSeconds = 60;  // one without a token and as young as that is not dead

std::string random_hex(size_t digits) {
  static const char hex[] = "0123456789abcdef";
  std::string s(digits, '0');
  size_t got = 0;
  while (got < digits) {
    ssize_t n = ::getrandom(s.data() + got, digits - got, 0);
    if (n > 0) got += static_cast<size_t>(n);
  }
  for (char& c : s) c = hex[static_cast<uint8_t>(c) & 15];
  return s;
}

std::string default_base() { return strprintf("/tmp/libray-%u", ::geteuid()); }

// A folder in which everybody may make files, but nobody replace those of others: /tmp. Its owner could.
bool is_shared(const struct stat& st) {
  return S_ISDIR(st.st_mode) && (st.st_mode & kOthersWrite) && (st.st_mode & S_ISVTX) &&
         (st.st_uid == 0 || st.st_uid == ::geteuid());
}

// That nobody can put another folder in the base's place. Owners of the folders above it are trusted, everybody is not.
Status check_above(const std::string& base) {
  std::error_code ec;
  std::filesystem::path at = std::filesystem::canonical(std::filesystem::path(base).parent_path(), ec);
  if (ec) return Status();  // there is none: making the base fails with the reason
  for (;; at = at.parent_path()) {
    struct stat st;
    if (::stat(at.c_str(), &st) == 0 && (st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX))
      return error(RAY_INVALID_ARGUMENT,
                   "session base '%s' can be replaced by any user, who may write to '%s': chmod o-w that, or set "
                   "LIBRAY_TMPDIR to another folder",
                   base.c_str(), at.c_str());
    if (at == at.parent_path()) return Status();
  }
}

Status check_base(const std::string& base) {
  RAY_TRY(check_above(base));
  auto dir = open_own_dir(base);
  struct stat st;
  // The default one is ours alone, so that whatever made it open to others (a umask, once) is put right. What others
  // may have made in it is looked at by itself.
  if (!dir.ok() && base == default_base() && ::lstat(base.c_str(), &st) == 0 && S_ISDIR(st.st_mode) &&
      st.st_uid == ::geteuid() && ::chmod(base.c_str(), 0700) == 0)
    return Status();
  if (dir.ok()) return Status();
  return error(dir.status().code(), "session base %s; LIBRAY_TMPDIR names another folder",
               dir.status().message().c_str());
}

Status make_dir(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return Status();
  return errno_error(RAY_UNAVAILABLE, "cannot make directory '%s'", path.c_str());
}

Result<Fd> lock_shared(int dir_fd, const std::string& dir) {
  std::string path = dir + "/" + kLockFile;
  auto fd = open_own_file(dir_fd, kLockFile, O_RDWR | O_CREAT, kOthersWrite, path);
  if (!fd.ok()) return fd.status();
  // An exclusive lock is only ever taken for the moment of a test: wait for it.
  int rc;
  do rc = ::flock(fd->get(), LOCK_SH);
  while (rc != 0 && errno == EINTR);
  if (rc != 0) return errno_error(RAY_UNAVAILABLE, "cannot lock '%s'", path.c_str());
  return fd;
}

constexpr size_t kMaxFile = 64u << 20;

Result<std::string> read_all(int fd, const std::string& path, size_t limit = kMaxFile) {
  std::string out;
  char buf[4096];
  for (;;) {
    ssize_t n = ::read(fd, buf, sizeof buf);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(RAY_UNAVAILABLE, "cannot read '%s'", path.c_str());
    if (n == 0) return out;
    out.append(buf, static_cast<size_t>(n));
    if (out.size() > limit) return error(RAY_INVALID_ARGUMENT, "'%s' is too large", path.c_str());
  }
}

}  // namespace

std::string base_path(const std::string& requested) {
  std::string base = requested;
  if (base.empty()) {
    const char* env = std::getenv("LIBRAY_TMPDIR");
    base = env && *env ? env : default_base();
  }
  std::error_code ec;
  std::string absolute = std::filesystem::absolute(base, ec).lexically_normal().string();
  if (!ec) base = absolute;
  while (base.size() > 1 && base.back() == '/') base.pop_back();
  struct stat st;
  if (::lstat(base.c_str(), &st) == 0 && is_shared(st)) base += strprintf("/libray-%u", ::geteuid());
  return base;
}

Result<std::string> session_base(const std::string& requested) {
  std::string base = base_path(requested);
  if (::mkdir(base.c_str(), 0700) != 0 && errno != EEXIST)
    return errno_error(RAY_UNAVAILABLE, "cannot make session base '%s'", base.c_str());
  RAY_TRY(check_base(base));
  return base;
}

Result<Session> create_session(const std::string& base) {
  prune_sessions(base, SessionLimits::from_environment());
  char stamp[32];
  std::time_t now = std::time(nullptr);
  std::tm t;
  localtime_r(&now, &t);
  std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &t);
  Session s;
  s.dir = strprintf("%s/%s%s-%d-%s", base.c_str(), kPrefix, stamp, ::getpid(), random_hex(6).c_str());
  if (s.dir.size() > kMaxSessionPath)
    return error(RAY_INVALID_ARGUMENT,
                 "session path '%s' is too long for a socket: set LIBRAY_TMPDIR to a shorter folder",
                 s.dir.c_str());
  RAY_TRY(make_dir(s.dir));
  auto dir = open_own_dir(s.dir);
  if (!dir.ok()) return dir.status();
  auto lock = lock_shared(dir->get(), s.dir);
  if (!lock.ok()) return lock.status();
  s.lock = std::move(*lock);
  s.token = random_hex(sizeof(wire::Hello::token));
  RAY_TRY(write_file(s.dir + "/" + wire::kTokenFile, s.token));
  RAY_TRY(make_dir(s.dir + "/logs"));
  RAY_TRY(make_dir(s.dir + "/spill"));
  return s;
}

Result<Session> open_session(const std::string& path) {
  Session s;
  s.dir = path;
  char target[PATH_MAX];  // of a link, which is as good as what it leads to
  struct stat st;
  if (::lstat(path.c_str(), &st) == 0 && S_ISLNK(st.st_mode) && ::realpath(path.c_str(), target)) s.dir = target;
  auto dir = open_own_dir(s.dir);
  if (dir.status().code() == RAY_NOT_FOUND)
    return error(RAY_NOT_FOUND, "no session directory '%s'", path.c_str());
  if (!dir.ok()) return error(dir.status().code(), "session %s", dir.status().message().c_str());
  std::string token_path = s.dir + "/" + wire::kTokenFile;
  auto file = open_own_file(dir->get(), wire::kTokenFile, O_RDONLY, kOthersAny, token_path);
  if (!file.ok()) return file.status();
  auto token = read_all(file->get(), token_path);
  if (!token.ok()) return token.status();
  s.token = std::move(*token);
  while (!s.token.empty() && (s.token.back() == '\n' || s.token.back() == ' ')) s.token.pop_back();
  if (s.token.size() != sizeof(wire::Hello::token))
    return error(RAY_INVALID_ARGUMENT, "token of session '%s' is malformed", s.dir.c_str());
  auto lock = lock_shared(dir->get(), s.dir);
  if (!lock.ok()) return lock.status();
  s.lock = std::move(*lock);
  return s;
}

Status check_session(const std::string& path) {
  auto dir = open_own_dir(path);
  if (dir.ok()) return Status();
  return error(dir.status().code(), "session %s", dir.status().message().c_str());
}

bool session_alive(const std::string& dir) {
  Fd fd(::open((dir + "/" + kLockFile).c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return false;
  return ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

std::vector<std::string> list_sessions(const std::string& base) {
  std::vector<std::string> out;
  DIR* d = ::opendir(base.c_str());
  if (!d) return out;
  while (dirent* e = ::readdir(d)) {
    struct stat st;
    // What another user made is none of ours, whatever it says of itself.
    if (std::strncmp(e->d_name, kPrefix, sizeof kPrefix - 1) == 0 &&
        ::fstatat(::dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
        st.st_uid == ::geteuid() && !(st.st_mode & kOthersWrite))
      out.push_back(base + "/" + e->d_name);
  }
  ::closedir(d);
  std::sort(out.begin(), out.end());
  return out;
}

SessionLimits SessionLimits::from_environment() {
  SessionLimits l;
  const char* text = std::getenv("LIBRAY_SESSION_BYTES");
  char* end = nullptr;
  uint64_t n = text && *text ? std::strtoull(text, &end, 10) : l.bytes;
  if (!end || !*end) l.bytes = n;
  return l;
}

uint64_t bytes_on_disk(const std::string& dir) {
  namespace fs = std::filesystem;
  uint64_t sum = 0;
  std::error_code ec;
  for (fs::recursive_directory_iterator it(dir, ec), end; !ec && it != end; it.increment(ec)) {
    struct stat st;
    if (::lstat(it->path().c_str(), &st) == 0 && S_ISREG(st.st_mode))
      sum += static_cast<uint64_t>(st.st_blocks) * 512;
  }
  return sum;
}

Pruned prune_sessions(const std::string& base, const SessionLimits& limits, bool dry) {
  struct Dead {
    std::string dir;
    uint64_t bytes;
  };
  std::vector<Dead> dead;
  Pruned done;
  std::error_code ec;
  for (const std::string& dir : list_sessions(base)) {
    if (session_alive(dir)) continue;
    struct stat st;
    if (::stat((dir + "/" + wire::kTokenFile).c_str(), &st) != 0 && ::stat(dir.c_str(), &st) == 0 &&
        std::time(nullptr) - st.st_mtim.tv_sec < kBeingMadeSeconds)
      continue;
    if (!dry)
      for (const auto& spilled : std::filesystem::directory_iterator(dir + "/spill", ec))
        std::filesystem::remove_all(spilled.path(), ec);
    dead.push_back({dir, bytes_on_disk(dir)});
    done.kept_bytes += dead.back().bytes;
  }
  // The newest are kept: their logs explain what happened.
  done.kept = dead.size();
  for (const Dead& d : dead) {
    if (done.kept <= limits.count && done.kept_bytes <= limits.bytes) break;
    if (!dry) std::filesystem::remove_all(d.dir, ec);
    --done.kept;
    ++done.sessions;
    done.kept_bytes -= d.bytes;
    done.bytes += d.bytes;
  }
  return done;
}

void remove_sockets(const std::string& dir) {
  DIR* d = ::opendir(dir.c_str());
  if (!d) return;
  std::vector<std::string> sockets;
  while (dirent* e = ::readdir(d)) {
    std::string path = dir + "/" + e->d_name;
    struct stat st;
    if (::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) sockets.push_back(path);
  }
  ::closedir(d);
  for (const std::string& path : sockets) ::unlink(path.c_str());
}

std::string own_folder() {
  Dl_info info;
  char resolved[PATH_MAX];
  std::string path;
  // In the main program dli_fname is argv[0], which need not be a path: ask the kernel instead.
  if (::dladdr(reinterpret_cast<void*>(&own_folder), &info) && info.dli_fname &&
      std::strchr(info.dli_fname, '/') && ::realpath(info.dli_fname, resolved))
    path = resolved;
  else if (::realpath("/proc/self/exe", resolved))
    path = resolved;
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string(".") : path.substr(0, slash);
}

Result<std::string> find_rayd() {
  const char* env = std::getenv("LIBRAY_RAYD");
  if (env && *env) {
    if (is_program(env)) return std::string(env);
    return errno_error(RAY_UNAVAILABLE, "cannot run '%s' named by LIBRAY_RAYD", env);
  }
  std::string folder = own_folder();
  for (const char* candidate : {"/rayd", "/../bin/rayd"}) {
    std::string path = folder + candidate;
    if (is_program(path.c_str())) return path;
  }
  return error(RAY_UNAVAILABLE, "no 'rayd' in '%s' or '%s/../bin': install it there or set LIBRAY_RAYD",
               folder.c_str(), folder.c_str());
}

Result<std::string> read_file(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot open '%s'", path.c_str());
  return read_all(fd.get(), path);
}

Result<std::string> read_open_file(int fd, const std::string& path, size_t limit) { return read_all(fd, path, limit); }

static Status write_all(int fd, const std::string& path, const std::string& content) {
  size_t done = 0;
  while (done < content.size()) {
    ssize_t n = ::write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(RAY_UNAVAILABLE, "cannot write '%s'", path.c_str());
    done += static_cast<size_t>(n);
  }
  return Status();
}

Status write_file(const std::string& path, const std::string& content, int mode) {
  std::string temporary = path + ".new";
  Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot write '%s'", path.c_str());
  RAY_TRY(write_all(fd.get(), path, content));
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return errno_error(RAY_UNAVAILABLE, "cannot rename '%s'", temporary.c_str());
  return Status();
}

// Under a name that nobody can have prepared, and moved only where nothing is.
Status create_secret_file(const std::string& path, const std::string& content) {
  uint64_t word;
  if (::getrandom(&word, sizeof word, 0) != sizeof word) return errno_error(RAY_UNAVAILABLE, "no random numbers");
  const std::string temporary = path + strprintf(".%016llx", static_cast<unsigned long long>(word));
  Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot make '%s'", path.c_str());
  Status s;
  if (::fchmod(fd.get(), 0600) != 0) s = errno_error(RAY_UNAVAILABLE, "cannot set the mode of '%s'", path.c_str());
  if (s.ok()) s = check_own(fd.get(), S_IFREG, kOthersAny, path);  // not every file system knows owners and modes
  if (s.ok()) s = write_all(fd.get(), path, content);
  if (s.ok() && ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) == 0) return s;
  if (s.ok() && (errno == EEXIST || ::link(temporary.c_str(), path.c_str()) != 0))
    s = errno_error(errno == EEXIST ? RAY_CONFLICT : RAY_UNAVAILABLE, "cannot make '%s'", path.c_str());
  ::unlink(temporary.c_str());
  return s;
}

}  // namespace ray::session
