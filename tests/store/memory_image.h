// The shared memory of a store as an outside auditor sees it: read-only mappings of the memfds of a
// daemon process. audit() is a pure function of that memory (I5) and checks I1, I2 and I3.
#pragma once
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "libray/base/shm.h"
#include "store/directory.h"
#include "store/layout.h"
#include "tests/store/crash_plan.h"

namespace ray::store {

struct AuditResult {
  std::string violation;            // empty = consistent
  std::vector<uint64_t> committed;  // numbers of the objects whose commit is in the ring, in order
  uint64_t building = 0,
           holds = 0;  // headers under construction behind the last commit, hold words
};

class MemoryImage {
 public:
  // Of the client that connected last.
  static std::unique_ptr<MemoryImage> open(pid_t daemon) {
    auto image = std::make_unique<MemoryImage>();
    Fd directory = image->find(daemon, kDirectoryName, nullptr);
    Fd control = image->find(daemon, kControlName, &image->segment_);
    if (!directory.valid() || !control.valid()) return nullptr;
    uint32_t data_segment = image->segment_;
    Fd data = image->find(daemon, kDataName + std::to_string(image->segment_), &data_segment);
    auto d = map_shared(directory.get(), kDirectoryBytes, false);
    auto c = map_shared(control.get(), kControlBytes, false);
    if (!d.ok() || !c.ok()) return nullptr;
    image->geometry_.arena_bytes = reinterpret_cast<const DirectoryHeader*>(d->data())->arena_bytes;
    auto m = map_shared(data.get(), image->geometry_.total(), false);
    if (!m.ok()) return nullptr;
    image->directory_ = std::move(*d);
    image->control_ = std::move(*c);
    image->data_ = std::move(*m);
    return image;
  }
  bool drained() const { return page()->publish.tail.load() == page()->publish.head.load(); }
  // Words that the daemon writes: as long as it stands still they must not change (I1).
  void remember_foreign_words() { foreign_ = foreign(); }

  AuditResult audit() const {
    AuditResult r;
    auto bad = [&](const std::string& text) {
      if (r.violation.empty()) r.violation = text;
    };
    if (!foreign_.empty() && foreign() != foreign_)
      bad("the client changed a word that belongs to the daemon");
    uint64_t head = page()->publish.head.load(), tail = page()->publish.tail.load();
    if (tail < head || tail - head > kPublishBytes) bad("the ring's tail is out of range");
    uint64_t after = 0;  // end of the last committed object
    while (head < tail && r.violation.empty()) {
      RecordHeader h;
      const uint8_t* at = control_.data() + kPublishAt + head % kPublishBytes;
      std::memcpy(&h, at, sizeof h);
      if (h.size < sizeof h || pad8(h.size) > tail - head) {
        bad("a committed record has a bad size");
        break;
      }
      if (h.type == kPublish) {
        PublishRecord p;
        std::memcpy(&p, at + sizeof h, sizeof p);
        check_object(p, bad);
        r.committed.push_back(crash_number(p.id));
        after = p.offset + footprint(p.size);
      }
      head += pad8(h.size);
    }
    check_holds(&r, bad);
    // What is being built lies behind the last committed object; the audit only counts it.
    for (uint64_t offset = after; offset < after + (64 << 10) && offset < geometry_.arena_bytes;
         offset += kLine)
      if (static_cast<uint32_t>(header(offset)->state.load()) == kBuilding) ++r.building;
    return r;
  }

 private:
  Fd find(pid_t daemon, const std::string& name, uint32_t* segment) const {
    Fd best;
    uint32_t best_segment = 0;
    std::string dir = "/proc/" + std::to_string(daemon) + "/fd";
    DIR* d = ::opendir(dir.c_str());
    while (dirent* e = d ? ::readdir(d) : nullptr) {
      char target[256] = {};
      std::string path = dir + "/" + e->d_name;
      if (::readlink(path.c_str(), target, sizeof target - 1) <= 0) continue;
      std::string want = "/memfd:" + name, have = target;
      if (have.rfind(want, 0) != 0) continue;
      if (name.back() != '-' && have[want.size()] != ' ') continue;
      uint32_t n = static_cast<uint32_t>(std::strtoul(have.c_str() + want.size(), nullptr, 10));
      if (best.valid() && n <= best_segment) continue;
      best = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      best_segment = n;
    }
    if (d) ::closedir(d);
    if (segment && name.back() == '-') *segment = best_segment;
    return best;
  }
  const ControlHeader* page() const {
    return reinterpret_cast<const ControlHeader*>(control_.data());
  }
  const ObjectHeader* header(uint64_t offset) const {
    return reinterpret_cast<const ObjectHeader*>(data_.data() + geometry_.arena_at() + offset);
  }
  uint32_t generation(uint64_t offset) const {
    return reinterpret_cast<const std::atomic<uint32_t>*>(data_.data())[offset / kUnit].load();
  }
  std::vector<uint64_t> foreign() const {
    std::vector<uint64_t> w = {page()->publish.head.load(), page()->returns.tail.load(),
                               page()->unpin_wanted.load(), page()->segment};
    for (uint64_t u = 0; u < 256; ++u) w.push_back(generation(u * kUnit));
    auto* d = reinterpret_cast<const uint64_t*>(directory_.data());
    for (uint64_t i = 0; i < sizeof(DirectoryHeader) / 8; ++i) w.push_back(d[i]);
    auto* t = reinterpret_cast<const uint64_t*>(directory_.data() + table_at(kMinTableLog2));
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 4096; ++i) sum = sum * 31 + t[i * 8];
    w.push_back(sum);
    return w;
  }
  template <class Bad>
  void check_object(const PublishRecord& p, Bad bad) const {
    if (p.offset % kLine != 0 || p.offset + footprint(p.size) > geometry_.arena_bytes)
      return bad("a committed record points outside the arena");
    const ObjectHeader* h = header(p.offset);
    uint64_t state = h->state.load();
    if (static_cast<uint32_t>(state) != kSealed)
      return bad("a committed object is not sealed (I2)");
    if (static_cast<uint32_t>(state >> 32) != generation(p.offset))
      return bad("a committed object belongs to another lease (I3)");
    if (!(h->id == p.id) || h->size != p.size)
      return bad("a committed object has another header than its record");
    auto* bytes = reinterpret_cast<const uint8_t*>(h + 1);
    uint64_t n = crash_number(p.id);
    for (uint64_t i = 0; i < p.size; ++i)
      if (bytes[i] != crash_byte(n, i)) return bad("a committed object has other bytes");
  }
  template <class Bad>
  void check_holds(AuditResult* r, Bad bad) const {
    auto* words = reinterpret_cast<const std::atomic<uint64_t>*>(control_.data() + kHoldsAt);
    uint32_t limit = page()->hold_limit.load();
    if (limit > kHolds) return bad("the hold table is longer than it can be");
    for (uint32_t i = 0; i < limit + 64 && i < kHolds; ++i) {
      uint64_t w = words[i].load();
      if (w == 0) continue;
      ++r->holds;
      if (i >= limit) return bad("a hold word lies behind the limit that the daemon scans");
      uint64_t offset = (w & ((uint64_t{1} << 40) - 1)) * kLine;
      if (w >> 40 != segment_ || offset >= geometry_.arena_bytes)
        return bad("a hold word names no place");
      if (static_cast<uint32_t>(header(offset)->state.load()) != kSealed)
        bad("a hold word names no sealed object");
    }
  }

  uint32_t segment_ = 0;
  DataGeometry geometry_;
  Mapping directory_, control_, data_;
  std::vector<uint64_t> foreign_;
};

}  // namespace ray::store
