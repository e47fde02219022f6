// See running.h.
#include "libray/cli/running.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libray/base/shm.h"
#include "libray/cli/session_files.h"

namespace ray::cli {
namespace {

void read_channel(const std::string& path, std::map<std::string, RunningRow>* out) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat st {};
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0) return;
  if (static_cast<uint64_t>(st.st_size) < wire::kUpOffset) return;
  auto map = map_shared(fd.get(), wire::kUpOffset, false);
  if (!map.ok()) return;
  const auto& channel = *reinterpret_cast<const wire::ChannelHeader*>(map->data());
  if (channel.magic != wire::kMagic || channel.version != wire::kProtocolVersion) return;
  for (uint32_t slot = 0; slot < wire::kRunningSlots; ++slot) {
    RunningRow row;
    if (!wire::read_running(channel, slot, &row.task)) continue;
    row.pid = static_cast<int>(channel.pid);
    (*out)[row.task.task.hex()] = row;
  }
}

}  // namespace

std::map<std::string, RunningRow> running_tasks(const std::string& session) {
  std::map<std::string, RunningRow> out;
  NodeFile node = read_node_file(session);
  if (!node.found || node_state(session, node) == NodeState::kDead) return out;
  std::string dir = "/proc/" + std::to_string(node.pid) + "/fd";
  DIR* d = ::opendir(dir.c_str());  // the daemon holds the channels of all processes
  if (!d) return out;
  while (dirent* e = ::readdir(d)) {
    std::string path = dir + "/" + e->d_name;
    char target[64];
    ssize_t n = ::readlink(path.c_str(), target, sizeof target);
    if (n > 0 && std::string_view(target, static_cast<size_t>(n)).rfind("/memfd:ray-channel", 0) == 0)
      read_channel(path, &out);
  }
  ::closedir(d);
  return out;
}

}  // namespace ray::cli
