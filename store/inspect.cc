// See inspect.h.
#include "store/inspect.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <unordered_map>

#include "store/directory.h"
#include "store/layout.h"

namespace ray::store {

namespace {

struct Found {
  Fd fd;
  uint32_t segment = 0;
};

// Opens every memfd of process `pid` whose name starts with `prefix`, read-only.
std::vector<Found> open_memfds(int pid, const std::string& prefix) {
  std::vector<Found> out;
  std::string dir = "/proc/" + std::to_string(pid) + "/fd";
  DIR* d = ::opendir(dir.c_str());
  if (!d) return out;
  while (dirent* e = ::readdir(d)) {
    std::string path = dir + "/" + e->d_name;
    char target[256];
    ssize_t n = ::readlink(path.c_str(), target, sizeof target - 1);
    if (n <= 0) continue;
    target[n] = 0;
    std::string want = "/memfd:" + prefix;
    if (std::string(target).rfind(want, 0) != 0) continue;
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) continue;
    uint32_t segment = static_cast<uint32_t>(std::strtoul(target + want.size(), nullptr, 10));
    bool known = std::any_of(out.begin(), out.end(), [&](auto& f) { return f.segment == segment; });
    if (!known) out.push_back({std::move(fd), segment});
  }
  ::closedir(d);
  return out;
}

Result<Mapping> map_whole(const Fd& fd, uint64_t at_least) {
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0 || static_cast<uint64_t>(st.st_size) < at_least)
    return error(RAY_UNSUPPORTED, "this object store has another layout than this program knows");
  return map_shared(fd.get(), at_least, false);
}

// What a client committed and the daemon has not read yet.
void read_unread(const Mapping& control, InspectedClient* c, std::vector<InspectedObject>* out) {
  auto* h = reinterpret_cast<ControlHeader*>(control.data());
  RingConsumer ring(&h->publish, control.data() + kPublishAt, kPublishBytes);  // loads only
  c->unread_records = h->publish.tail.load(std::memory_order_acquire) - ring.position();
  RecordView v;
  while (ring.next(&v) == RingConsumer::Next::kRecord) {
    if (v.type != kPublish || v.size != sizeof(PublishRecord)) continue;
    PublishRecord r;
    std::memcpy(&r, v.data, sizeof r);
    out->push_back({r.id, r.size, c->segment, 0, "committed"});
  }
}

void read_client(const Mapping& control, InspectedClient* c,
                 std::unordered_map<uint64_t, uint32_t>* pins) {
  auto* h = reinterpret_cast<const ControlHeader*>(control.data());
  c->segment = h->segment;
  c->pid = h->pid;
  auto* words = reinterpret_cast<const std::atomic<uint64_t>*>(control.data() + kHoldsAt);
  uint32_t limit = std::min(h->hold_limit.load(std::memory_order_acquire), kHolds);
  for (uint32_t i = 0; i < limit; ++i)
    if (uint64_t w = words[i].load(std::memory_order_relaxed)) {
      ++(*pins)[w];
      ++c->pins;
    }
}

}  // namespace

Result<Inspection> inspect(int daemon_pid, uint32_t object_limit) {
  auto dirs = open_memfds(daemon_pid, kDirectoryName);
  if (dirs.empty())
    return error(RAY_NOT_FOUND, "process %d runs no object store that this user may see",
                 daemon_pid);
  auto dir_map = map_whole(dirs[0].fd, kDirectoryBytes);
  if (!dir_map.ok()) return dir_map.status();
  DirectoryReader directory(dir_map->data());
  const DirectoryHeader* d = directory.header();
  if (d->magic != kStoreMagic || d->version != kStoreVersion)
    return error(RAY_UNSUPPORTED, "the object store of process %d has another version", daemon_pid);

  Inspection out;
  out.daemon_pid = d->pid;
  std::unordered_map<uint64_t, uint32_t> pins;
  std::vector<InspectedObject> unread;
  for (auto& found : open_memfds(daemon_pid, kControlName)) {
    auto map = map_whole(found.fd, kControlBytes);
    if (!map.ok()) continue;
    InspectedClient c;
    read_client(*map, &c, &pins);
    read_unread(*map, &c, &unread);
    out.stats.pinned += c.pins;
    out.clients.push_back(c);
  }
  directory.for_each([&](const DirectoryRow& row) {
    if (out.objects.size() >= object_limit) return false;
    InspectedObject o;
    o.id = row.id;
    o.size = row.location.size;
    o.segment = row.location.segment;
    o.state = row.state == kDirSpilled ? "spilled" : "sealed";
    if (row.state == kDirMemory)
      if (auto it = pins.find(hold_word(row.location.segment, row.location.offset));
          it != pins.end())
        o.pins = it->second;
    out.objects.push_back(o);
    return true;
  });
  for (auto& o : unread)
    if (out.objects.size() < object_limit) out.objects.push_back(o);
  auto get = [](const std::atomic<uint64_t>& w) { return w.load(std::memory_order_relaxed); };
  out.stats.capacity = d->capacity;
  out.stats.used = get(d->used);
  out.stats.objects = get(d->objects);
  out.stats.clients = out.clients.size();
  out.stats.spilled_bytes = get(d->spilled_bytes);
  out.stats.spilled_objects = get(d->spilled_objects);
  out.stats.restored_objects = get(d->restored_objects);
  out.stats.waiting_creates = get(d->waiting);
  return out;
}

}  // namespace ray::store
