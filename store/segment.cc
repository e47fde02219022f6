// See segment.h.
#include "store/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <string>

#include "libray/base/fault.h"
#include "store/directory.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ray::store {

Result<std::unique_ptr<Segment>> Segment::create(uint32_t number, uint64_t arena_bytes,
                                                 bool with_control, int pid) {
  std::unique_ptr<Segment> s(new Segment(arena_bytes));
  s->number_ = number;
  s->geometry_.arena_bytes = arena_bytes;
  auto data = create_memfd((kDataName + std::to_string(number)).c_str(), s->geometry_.total());
  if (!data.ok()) return data.status();
  // The size is fixed for ever: nobody can cut it under a reader (SIGBUS). Others than the owner
  // get a read-only descriptor. F_SEAL_FUTURE_WRITE would forbid to punch freed extents out.
  if (::fcntl(data->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return errno_error(RAY_INTERNAL, "cannot seal store segment %u", number);
  ::fchmod(data->get(), 0600);
  auto map = map_shared(data->get(), s->geometry_.total(), true);
  if (!map.ok()) return map.status();
  ::madvise(map->data(), map->size(), MADV_DONTFORK);
  ::madvise(map->data(), map->size(), MADV_DONTDUMP);
  s->data_fd_ = std::move(*data);
  s->data_map_ = std::move(*map);
  if (!with_control) return s;

  auto control = create_memfd((kControlName + std::to_string(number)).c_str(), kControlBytes);
  if (!control.ok()) return control.status();
  if (::fcntl(control->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return errno_error(RAY_INTERNAL, "cannot seal the control page of store segment %u", number);
  ::fchmod(control->get(), 0600);
  auto cmap = map_shared(control->get(), kControlBytes, true);
  if (!cmap.ok()) return cmap.status();
  ::madvise(cmap->data(), cmap->size(), MADV_DONTFORK);
  s->control_fd_ = std::move(*control);
  s->control_map_ = std::move(*cmap);
  ControlHeader* h = s->control();
  h->magic = kStoreMagic;
  h->version = kStoreVersion;
  h->segment = number;
  h->pid = pid;
  return s;
}

Result<Fd> Segment::readonly_fd() const { return reopen_readonly(data_fd_.get()); }

void Segment::seal_control() {
  ::fcntl(control_fd_.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
}

void Segment::drop_control() {
  control_map_.reset();
  control_fd_.reset();
}

Status Segment::commit_pages(uint64_t offset, uint64_t size, bool touch) const {
  if (RAY_FAULT_FAILS("store.commit_pages"))
    return error(RAY_STORE_FULL,
                 "the machine has no memory left for %llu bytes of the object store",
                 static_cast<unsigned long long>(size));
  uint64_t at = geometry_.arena_at() + offset;
  int rc;
  do
    rc = ::fallocate(data_fd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                     static_cast<off_t>(size));
  while (rc != 0 && errno == EINTR);
  if (rc != 0)
    return errno_error(RAY_STORE_FULL,
                       "the machine has no memory left for %llu bytes of the object store",
                       static_cast<unsigned long long>(size));
  if (!touch) return Status();
  // Through a mapping of its own, so that the pages do not stay in this process's page tables.
  auto map = map_shared(data_fd_.get(), size, true, at);
  if (map.ok()) ::madvise(map->data(), size, MADV_POPULATE_WRITE);
  return Status();
}

void Segment::punch(uint64_t offset, uint64_t size) const {
  uint64_t at = geometry_.arena_at() + offset;
  while (::fallocate(data_fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(at), static_cast<off_t>(size)) != 0 &&
         errno == EINTR) {
  }
}

void Segment::set_generation(uint64_t offset, uint64_t size, uint32_t generation) {
  auto* units = reinterpret_cast<std::atomic<uint32_t>*>(data_map_.data());
  for (uint64_t u = offset / kUnit; u < (offset + size) / kUnit; ++u)
    units[u].store(generation, std::memory_order_release);
}

void Segment::forget_mappings(uint64_t offset, uint64_t size) const {
  ::madvise(arena() + offset, size, MADV_DONTNEED);
}

}  // namespace ray::store
