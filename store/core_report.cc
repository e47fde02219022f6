// What the store says about itself: statistics, listing, the text of "store is full". See core.h.
#include <algorithm>
#include <set>

#ifndef MSGPACK_NO_BOOST
#define MSGPACK_NO_BOOST
#endif
#include <msgpack.hpp>

#include "store/core.h"

namespace ray::store {

namespace {
std::string human(uint64_t bytes) {
  if (bytes < (10 << 10)) return strprintf("%llu B", static_cast<unsigned long long>(bytes));
  if (bytes < (1 << 20)) return strprintf("%.1f KiB", static_cast<double>(bytes) / 1024);
  return strprintf("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}
}  // namespace

DaemonStats Core::stats() {
  scan_holds();
  DaemonStats s;
  s.capacity = options_.capacity_bytes;
  s.used = committed_ - warm_bytes();
  s.objects = directory_.size();
  s.pinned = holds_;
  s.clients = peers_.size();
  s.spilled_bytes = spilled_bytes_;
  s.spilled_objects = spilled_objects_;
  s.restored_objects = restored_objects_;
  s.waiting_creates = creates_.size();
  return s;
}

std::string Core::list_msgpack(uint32_t limit) {
  scan_holds();
  std::vector<uint32_t> rows;
  for (uint32_t n = 0; n < objects_.size() && rows.size() < limit; ++n)
    if (objects_[n].state != Object::kFree) rows.push_back(n);
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> pack(buffer);
  pack.pack_array(static_cast<uint32_t>(rows.size()));
  for (uint32_t n : rows) {
    const Object& o = objects_[n];
    bool memory = o.extent != kNone;
    uint64_t pins = o.grants;
    if (memory) pins += held_.count(word_of(o));
    const char* state = o.state == Object::kMemory    ? "sealed"
                        : o.state == Object::kSpilled ? "spilled"
                        : o.state == Object::kGone    ? "dropped"
                                                      : "restoring";
    pack.pack_map(6);
    pack.pack("id"), pack.pack(o.id.hex());
    pack.pack("size"), pack.pack(o.size);
    pack.pack("state"), pack.pack(state);
    pack.pack("pins"), pack.pack(pins);
    pack.pack("segment"), pack.pack(memory ? extents_[o.extent].segment : 0u);
    pack.pack("spilled"), pack.pack(o.clean || o.state == Object::kSpilled);
  }
  return {buffer.data(), buffer.size()};
}

std::string Core::full_text(const Waiting& w, const std::string& why) {
  scan_holds();
  uint64_t pinned = 0;
  std::unordered_map<uint64_t, uint64_t> sizes;  // hold word -> bytes
  for (const Object& o : objects_) {
    if (o.extent == kNone || o.state == Object::kFree || !is_held(o)) continue;
    pinned += footprint(o.size);
    sizes[word_of(o)] = footprint(o.size);
  }
  std::vector<std::pair<uint64_t, std::string>> by_client;
  for (Peer* p : peer_list_) {
    if (p->holds == 0) continue;
    auto* words = reinterpret_cast<std::atomic<uint64_t>*>(p->segment->control_base() + kHoldsAt);
    uint32_t limit =
        std::min(p->segment->control()->hold_limit.load(std::memory_order_relaxed), kHolds);
    std::unordered_map<uint64_t, bool> seen;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < limit; ++i) {
      uint64_t word = words[i].load(std::memory_order_relaxed);
      if (auto it = sizes.find(word); word && it != sizes.end() && !seen[word]) {
        seen[word] = true;
        bytes += it->second;
      }
    }
    by_client.push_back(
        {bytes, strprintf("process %d: %s in %u pins", p->pid, human(bytes).c_str(), p->holds)});
  }
  for (const auto& [number, h] : heirs_) {
    uint64_t bytes = 0;
    for (uint64_t word : std::set<uint64_t>(h.words.begin(), h.words.end()))
      if (auto it = sizes.find(word); it != sizes.end()) bytes += it->second;
    by_client.push_back({bytes, strprintf("children of process %d, which is gone: %s in %zu pins", h.pid,
                                          human(bytes).c_str(), h.words.size())});
  }
  std::sort(by_client.rbegin(), by_client.rend());
  std::string who;
  for (size_t i = 0; i < by_client.size() && i < 4; ++i)
    who += (i ? ", " : " by ") + by_client[i].second;
  if (by_client.size() > 4) who += strprintf(" and %zu more", by_client.size() - 4);
  std::string text = strprintf(
      "object store is full: %s asked, capacity %s, in use %s, pinned %s%s, spilled %s in %llu "
      "objects",
      human(w.bytes).c_str(), human(options_.capacity_bytes).c_str(),
      human(committed_ - warm_bytes()).c_str(), human(pinned).c_str(), who.c_str(),
      human(spilled_bytes_).c_str(), static_cast<unsigned long long>(spilled_objects_));
  if (!why.empty()) text += "; " + why;
  if (!spill_error_.ok()) text += "; " + spill_error_.message();
  text +=
      "; release references and values that are held, raise store_bytes (object_store_memory in "
      "Python) or ";
  text += spill_.enabled() ? "free disk space" : "allow spilling";
  return text;
}

}  // namespace ray::store
