// See trust.h.
#include "libray/base/trust.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace ray {
namespace {

const char* type_name(mode_t type) {
  return type == S_IFDIR ? "directory" : type == S_IFSOCK ? "socket" : "regular file";
}

}  // namespace

Status check_own(int fd, mode_t type, mode_t forbidden, const std::string& path) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return errno_error(RAY_UNAVAILABLE, "cannot look at '%s'", path.c_str());
  if ((st.st_mode & S_IFMT) != type)
    return error(RAY_INVALID_ARGUMENT, "'%s' is not a %s", path.c_str(), type_name(type));
  if (st.st_uid != ::geteuid())
    return error(RAY_INVALID_ARGUMENT, "'%s' belongs to user %u, not to this one (%u): it is not used", path.c_str(),
                 st.st_uid, ::geteuid());
  if (st.st_mode & forbidden)
    return error(RAY_INVALID_ARGUMENT, "'%s' may be %s by other users (mode %04o): chmod go-%s it", path.c_str(),
                 st.st_mode & forbidden & kOthersWrite ? "written" : "read", st.st_mode & 07777,
                 forbidden == kOthersAny ? "rwx" : "w");
  return Status();
}

Result<Fd> open_own_dir(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid() && errno == EACCES) {  // somebody else's, most likely: the reason is worth more than the code
    struct stat st;
    if (::lstat(path.c_str(), &st) == 0 && st.st_uid != ::geteuid())
      return error(RAY_INVALID_ARGUMENT, "'%s' belongs to user %u, not to this one (%u): it is not used", path.c_str(),
                   st.st_uid, ::geteuid());
    errno = EACCES;
  }
  if (!fd.valid() && errno == ENOENT) return error(RAY_NOT_FOUND, "there is no directory '%s'", path.c_str());
  if (!fd.valid() && (errno == ELOOP || errno == ENOTDIR))
    return error(RAY_INVALID_ARGUMENT, "'%s' is not a directory", path.c_str());
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot open directory '%s'", path.c_str());
  RAY_TRY(check_own(fd.get(), S_IFDIR, kOthersWrite, path));
  return fd;
}

Result<Fd> open_own_file(int dir, const char* name, int flags, mode_t forbidden, const std::string& path) {
  Fd fd(::openat(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!fd.valid() && errno == ELOOP) return error(RAY_INVALID_ARGUMENT, "'%s' is a link: it is not used", path.c_str());
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot open '%s'", path.c_str());
  RAY_TRY(check_own(fd.get(), S_IFREG, forbidden, path));
  return fd;
}

Result<Fd> connect_own(const std::string& path, int type) {
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  if (path.size() >= sizeof addr.sun_path)
    return error(RAY_INVALID_ARGUMENT, "'%s' is too long for a socket", path.c_str());
  Fd file(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return errno_error(RAY_UNAVAILABLE, "cannot reach '%s'", path.c_str());
  RAY_TRY(check_own(file.get(), S_IFSOCK, kOthersWrite, path));
  Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot make a socket");
  // Through the descriptor that was looked at; by name where /proc is missing, the process behind it is asked anyway.
  std::string by_fd = "/proc/self/fd/" + std::to_string(file.get());
  std::memcpy(addr.sun_path, by_fd.c_str(), by_fd.size() + 1);
  int rc = ::connect(fd.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr);
  if (rc != 0 && (errno == ENOENT || errno == EACCES)) {
    std::memcpy(addr.sun_path, path.c_str(), path.size() + 1);
    rc = ::connect(fd.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr);
  }
  if (rc != 0) return errno_error(RAY_UNAVAILABLE, "cannot reach '%s'", path.c_str());
  ucred peer;
  if (!is_same_user(fd.get(), &peer))
    return error(RAY_INVALID_ARGUMENT, "process %d, which listens at '%s', belongs to user %u, not to this one (%u)",
                 peer.pid, path.c_str(), peer.uid, ::geteuid());
  return fd;
}

bool is_same_user(int socket, ucred* peer) {
  *peer = {-1, static_cast<uid_t>(-1), static_cast<gid_t>(-1)};
  socklen_t size = sizeof *peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, peer, &size) == 0 && size == sizeof *peer &&
         peer->uid == ::geteuid();
}

Fd peer_pidfd(int socket, int pid) {
  int fd = -1;
  socklen_t size = sizeof fd;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) return Fd(fd);
  return Fd(errno == ENOPROTOOPT ? pidfd_open(pid) : -1);
}

}  // namespace ray
