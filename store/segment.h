// The daemon's side of one segment: its memfds, its mappings, its address space. Store thread only,
// except commit_pages and punch, which touch nothing but the memfd and may run on a job thread.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>

#include "libray/base/shm.h"
#include "store/layout.h"
#include "store/space.h"

namespace ray::store {

class Segment {
 public:
  // `with_control`: a client's segment; without: the daemon's own.
  static Result<std::unique_ptr<Segment>> create(uint32_t number, uint64_t arena_bytes,
                                                 bool with_control, int pid);
  uint32_t number() const { return number_; }
  const DataGeometry& geometry() const { return geometry_; }
  ControlHeader* control() const { return reinterpret_cast<ControlHeader*>(control_map_.data()); }
  uint8_t* control_base() const { return control_map_.data(); }
  uint8_t* arena() const { return data_map_.data() + geometry_.arena_at(); }
  ObjectHeader* header_at(uint64_t offset) const {
    return reinterpret_cast<ObjectHeader*>(arena() + offset);
  }
  int control_fd() const { return control_fd_.get(); }
  int data_fd() const { return data_fd_.get(); }
  Result<Fd> readonly_fd() const;  // a new descriptor for another client
  // After the owner mapped the control memfd nobody can map it writable any more.
  void seal_control();
  void drop_control();  // its client is gone; the data may still be in use

  // Allocates the pages of a run now, so that a machine without memory is an error here and not a
  // SIGBUS later. `touch` also clears and maps them once (the expensive part of a first write).
  Status commit_pages(uint64_t offset, uint64_t size, bool touch) const;
  void punch(uint64_t offset, uint64_t size) const;
  // Marks all units of a run as belonging to lease `generation`; 0 = to none.
  void set_generation(uint64_t offset, uint64_t size, uint32_t generation);
  // Lets this process's page tables forget the arena; the pages stay.
  void forget_mappings(uint64_t offset, uint64_t size) const;

  Space space;
  std::map<uint64_t, uint32_t> extents;  // offset -> extent number, all that are not free
  uint64_t live_objects = 0;
  int64_t used_ns = 0;  // when space of it was last leased or given back

 private:
  explicit Segment(uint64_t arena_bytes) : space(arena_bytes) {}
  uint32_t number_ = 0;
  DataGeometry geometry_;
  Fd control_fd_, data_fd_;
  Mapping control_map_, data_map_;
};

}  // namespace ray::store
