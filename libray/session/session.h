// Session directories: where a node keeps its sockets, logs, journal and spilled objects.
//
// Who calls it: ray_init (makes the directory, starts rayd in it), rayd (locks it, cleans it), the
// tools (list sessions), gcs shards (remove stale sockets when their node died). Any thread.
//
// Layout: BASE/session-YYYYmmdd-HHMMSS-PID-xxxxxx/{lock, token, node.sock, store.sock, logs/, spill/…}
// Invariants: base and session are 0700 and belong to this user; everyone who uses a session holds a
// shared flock on its `lock` file, so a session is dead exactly when an exclusive flock succeeds.
#pragma once
#include <string>
#include <vector>

#include "libray/base/shm.h"
#include "libray/base/status.h"

namespace ray::session {

struct Session {
  std::string dir;
  std::string token;  // 32 hexadecimal digits
  Fd lock;            // shared flock: keep it open as long as the session is in use
};

// Where this user's sessions lie: `requested`; empty = LIBRAY_TMPDIR, else /tmp/libray-UID. A folder that everybody may
// write to and that is sticky, as /tmp is, stands for libray-UID in it. Nothing is made or checked.
std::string base_path(const std::string& requested);
// Makes that directory when it is absent. Refused: a symbolic link, a directory of another user, one that others may
// write to, one in a folder in which everybody could replace it.
Result<std::string> session_base(const std::string& requested);
// Prunes dead sessions under `base`, then makes a new one with its token, logs/ and spill/.
Result<Session> create_session(const std::string& base);
// Locks and reads an existing one (a worker, a second driver, rayd). Refused, before anything of it is believed: folder,
// token or lock of another user, or open to others. See docs/security.md.
Result<Session> open_session(const std::string& dir);
// Whether it is one that only this user can have made; for tools, which read dead ones too.
Status check_session(const std::string& dir);
// Whether somebody holds the session's lock.
bool session_alive(const std::string& dir);
// This user's sessions under `base`, oldest first.
std::vector<std::string> list_sessions(const std::string& base);
// What dead sessions may be kept: so many, and so many bytes on disk of all of them together.
struct SessionLimits {
  size_t count = 10;
  uint64_t bytes = uint64_t{1} << 30;
  static SessionLimits from_environment();  // bytes: LIBRAY_SESSION_BYTES
};
struct Pruned {
  size_t sessions = 0, kept = 0;
  uint64_t bytes = 0, kept_bytes = 0;
};
// Removes dead sessions of this user, oldest first, until the others are within the limits. What they have spilled
// goes from all of them: nobody can read it any more. dry: removes nothing, only counts.
Pruned prune_sessions(const std::string& base, const SessionLimits& limits, bool dry = false);
// What the files under a directory have on disk.
uint64_t bytes_on_disk(const std::string& dir);
// Unlinks every socket file in the session directory.
void remove_sockets(const std::string& dir);

// LIBRAY_RAYD, else `rayd` beside this library or program, else ../bin/rayd from there.
Result<std::string> find_rayd();
// The folder of the library or program that this code was linked into.
std::string own_folder();

// Whole small files (token, session.json). Write is atomic: a temporary file and a rename.
// Environment: the token of a cluster, for `libray start` alone. Nothing that libray starts inherits it.
inline constexpr char kTokenVariable[] = "LIBRAY_TOKEN";

Result<std::string> read_file(const std::string& path);
Status write_file(const std::string& path, const std::string& content, int mode = 0600);
// Of a descriptor that was looked at already (base/trust.h); RAY_INVALID_ARGUMENT when it has more bytes than that.
Result<std::string> read_open_file(int fd, const std::string& path, size_t limit);
// A file with a secret, in a folder where others may make files too: whatever the umask it is its owner's alone, and
// whatever has that name already, also a link, stays as it is (RAY_CONFLICT).
Status create_secret_file(const std::string& path, const std::string& content);

}  // namespace ray::session
