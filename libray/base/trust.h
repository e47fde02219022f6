// Who is at the other end of a file, a folder or a socket. On a machine with several users a path proves nothing: whoever
// owns a folder above it, or shares one with everybody (/tmp), can put something else there. So everything of a session
// is looked at through the descriptor that is used afterwards, never by its name again. Any thread.
#pragma once
#include <sys/socket.h>
#include <sys/types.h>

#include <string>

#include "libray/base/shm.h"
#include "libray/base/status.h"

namespace ray {

// Permissions that nobody but the owner may have.
inline constexpr mode_t kOthersWrite = 022, kOthersAny = 077;

// That the descriptor is open to a file of this type (S_IFDIR...), of this user, with none of the `forbidden`
// permissions. `path` is for the message.
Status check_own(int fd, mode_t type, mode_t forbidden, const std::string& path);
// A folder of this user's in which nobody else can make or replace anything. RAY_NOT_FOUND = there is none.
Result<Fd> open_own_dir(const std::string& path);
// A file below such a folder; it is never a link, and opening it does not wait (for the writer of a pipe, say).
Result<Fd> open_own_file(int dir, const char* name, int flags, mode_t forbidden, const std::string& path);
// A connection to a socket file of this user's, on which a process of this user listens. Nothing was sent yet.
Result<Fd> connect_own(const std::string& path, int type);

// Whether the process that made the connection, or that listened for it, is one of this user. Tells which it is.
bool is_same_user(int socket, ucred* peer);
// A descriptor of that process, not of one that got its number meanwhile where the kernel can tell (Linux 6.5).
Fd peer_pidfd(int socket, int pid);

}  // namespace ray
