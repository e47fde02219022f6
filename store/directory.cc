// See directory.h.
#include "store/directory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

namespace ray::store {

namespace {

constexpr uint32_t kSizeBits = 48;
static_assert(kMaxArena < uint64_t{1} << kSizeBits);
constexpr uint32_t kProbes = 512;  // a reader gives up here: at half load chains are short

uint64_t home(const ObjectId& id, uint32_t log2) {
  return hash_id(id) & ((uint64_t{1} << log2) - 1);
}

void write_entry(DirectoryEntry* e, const DirectoryRow& row) {
  uint64_t id[3];
  std::memcpy(id, row.id.b, sizeof id);
  uint32_t seq = static_cast<uint32_t>(e->w[0].load(std::memory_order_relaxed)) + 1;
  uint64_t state = static_cast<uint64_t>(row.state) << 32;
  // Odd sequence first, then the words, then the even one: each store releases the ones before it.
  e->w[0].store(state | seq, std::memory_order_relaxed);
  for (int i = 0; i < 3; ++i) e->w[1 + i].store(id[i], std::memory_order_release);
  const Location& l = row.location;
  e->w[4].store(l.segment | static_cast<uint64_t>(l.generation) << 32, std::memory_order_release);
  e->w[5].store(l.offset, std::memory_order_release);
  e->w[6].store(l.size | row.copy << kSizeBits, std::memory_order_release);
  e->w[7].store(row.object | row.copy >> 16 << 32, std::memory_order_release);
  e->w[0].store(state | (seq + 1), std::memory_order_release);
}

void load_words(const DirectoryEntry* e, DirectoryRow* row) {
  uint64_t id[3];
  for (int i = 0; i < 3; ++i) id[i] = e->w[1 + i].load(std::memory_order_acquire);
  std::memcpy(row->id.b, id, sizeof id);
  uint64_t w4 = e->w[4].load(std::memory_order_acquire);
  row->location.segment = static_cast<uint32_t>(w4);
  row->location.generation = static_cast<uint32_t>(w4 >> 32);
  row->location.offset = e->w[5].load(std::memory_order_acquire);
  uint64_t w6 = e->w[6].load(std::memory_order_acquire);
  uint64_t w7 = e->w[7].load(std::memory_order_acquire);
  row->location.size = w6 & ((uint64_t{1} << kSizeBits) - 1);
  row->object = static_cast<uint32_t>(w7);
  row->copy = w7 >> 32 << 16 | w6 >> kSizeBits;
}

CopyName name_of(const DirectoryEntry& e) {
  return e.w[7].load(std::memory_order_relaxed) >> 32 << 16 |
         e.w[6].load(std::memory_order_relaxed) >> kSizeBits;
}

bool read_entry(const DirectoryEntry* e, DirectoryRow* row) {
  for (int tries = 0; tries < 64; ++tries) {
    uint64_t before = e->w[0].load(std::memory_order_acquire);
    if (before & 1) continue;
    row->state = static_cast<DirectoryState>(before >> 32);
    if (row->state != kDirEmpty) load_words(e, row);
    if (e->w[0].load(std::memory_order_relaxed) == before) return true;
  }
  return false;
}

}  // namespace

Result<Fd> reopen_readonly(int fd) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  Fd out(::open(path, O_RDONLY | O_CLOEXEC));
  if (!out.valid())
    return errno_error(RAY_UNAVAILABLE, "cannot reopen shared memory read-only through %s", path);
  return out;
}

Result<DirectoryWriter> DirectoryWriter::create(uint64_t capacity, uint32_t small_extent,
                                                uint64_t arena) {
  auto fd = create_memfd(kDirectoryName, kDirectoryBytes);
  if (!fd.ok()) return fd.status();
  if (::fcntl(fd->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return errno_error(RAY_INTERNAL, "cannot seal the store's directory");
  auto map = map_shared(fd->get(), kDirectoryBytes, true);
  if (!map.ok()) return map.status();
  ::madvise(map->data(), map->size(), MADV_DONTFORK);
  auto readonly = reopen_readonly(fd->get());
  if (!readonly.ok()) return readonly.status();
  DirectoryWriter w;
  w.fd_ = std::move(*fd);
  w.readonly_ = std::move(*readonly);
  w.map_ = std::move(*map);
  DirectoryHeader* h = w.header();
  h->version = kStoreVersion;
  h->pid = ::getpid();
  h->small_extent = small_extent;
  h->capacity = capacity;
  h->arena_bytes = arena;
  h->table.store(kMinTableLog2, std::memory_order_relaxed);
  h->magic = kStoreMagic;
  return w;
}

// Position of this copy, or of the empty entry where it belongs. The table is never full.
uint64_t DirectoryWriter::probe(const ObjectId& id, CopyName copy, bool* found) const {
  uint64_t mask = (uint64_t{1} << log2_) - 1;
  const DirectoryEntry* t = table(log2_);
  uint64_t want[3];
  std::memcpy(want, id.b, sizeof want);
  for (uint64_t i = home(id, log2_);; i = (i + 1) & mask) {
    const DirectoryEntry& e = t[i];
    if (e.w[0].load(std::memory_order_relaxed) >> 32 == kDirEmpty) {
      *found = false;
      return i;
    }
    if (e.w[1].load(std::memory_order_relaxed) == want[0] &&
        e.w[2].load(std::memory_order_relaxed) == want[1] &&
        e.w[3].load(std::memory_order_relaxed) == want[2] && (copy == 0 || name_of(e) == copy)) {
      *found = true;
      return i;
    }
  }
}

bool DirectoryWriter::insert(const DirectoryRow& row) {
  uint64_t entries = uint64_t{1} << log2_;
  if ((size_ + 1) * 2 > entries && log2_ < kMaxTableLog2) rehash(log2_ + 1);
  if ((size_ + 1) * 10 > (uint64_t{1} << log2_) * 9) return false;
  bool found;
  uint64_t at = probe(row.id, row.copy, &found);
  write_entry(&table(log2_)[at], row);
  size_ += !found;
  return true;
}

bool DirectoryWriter::find(const ObjectId& id, CopyName copy, DirectoryRow* out) const {
  bool found;
  const DirectoryEntry* e = &table(log2_)[probe(id, copy, &found)];
  if (!found) return false;
  out->state = static_cast<DirectoryState>(e->w[0].load(std::memory_order_relaxed) >> 32);
  load_words(e, out);
  return true;
}

void DirectoryWriter::find_all(const ObjectId& id, std::vector<DirectoryRow>* out) const {
  uint64_t mask = (uint64_t{1} << log2_) - 1;
  const DirectoryEntry* t = table(log2_);
  for (uint64_t i = home(id, log2_);; i = (i + 1) & mask) {
    DirectoryRow row;
    row.state = static_cast<DirectoryState>(t[i].w[0].load(std::memory_order_relaxed) >> 32);
    if (row.state == kDirEmpty) return;
    load_words(&t[i], &row);
    if (row.id == id) out->push_back(row);
  }
}

void DirectoryWriter::update(const DirectoryRow& row) {
  bool found;
  uint64_t at = probe(row.id, row.copy, &found);
  if (found) write_entry(&table(log2_)[at], row);
}

// Closes the gap by moving later members of the chain back. A concurrent reader may miss a member
// that is just being moved; it then asks the daemon.
void DirectoryWriter::erase(const ObjectId& id, CopyName copy) {
  bool found;
  uint64_t hole = probe(id, copy, &found);
  if (!found) return;
  --size_;
  DirectoryEntry* t = table(log2_);
  uint64_t mask = (uint64_t{1} << log2_) - 1;
  for (uint64_t i = (hole + 1) & mask;; i = (i + 1) & mask) {
    uint64_t state = t[i].w[0].load(std::memory_order_relaxed) >> 32;
    if (state == kDirEmpty) break;
    DirectoryRow row;
    row.state = static_cast<DirectoryState>(state);
    load_words(&t[i], &row);
    if (((i - home(row.id, log2_)) & mask) < ((i - hole) & mask)) continue;
    write_entry(&t[hole], row);
    hole = i;
  }
  write_entry(&t[hole], DirectoryRow{});
}

void DirectoryWriter::rehash(uint32_t log2) {
  uint32_t old = log2_;
  log2_ = log2;
  DirectoryEntry* from = table(old);
  for (uint64_t i = 0; i < uint64_t{1} << old; ++i) {
    uint64_t state = from[i].w[0].load(std::memory_order_relaxed) >> 32;
    if (state == kDirEmpty) continue;
    DirectoryRow row;
    row.state = static_cast<DirectoryState>(state);
    load_words(&from[i], &row);
    bool found;
    uint64_t at = probe(row.id, row.copy, &found);
    write_entry(&table(log2)[at], row);
  }
  header()->table.store(log2, std::memory_order_release);
  // Readers of the old table find nothing from now on, and ask again.
  ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              static_cast<off_t>(table_at(old)), static_cast<off_t>(table_at(old)));
}

void DirectoryWriter::shrink_if_sparse() {
  uint32_t log2 = log2_;
  while (log2 > kMinTableLog2 && size_ * 8 < (uint64_t{1} << log2)) --log2;
  if (log2 < log2_) rehash(log2);
}

bool DirectoryReader::find(const ObjectId& id, CopyName copy, DirectoryRow* out) const {
  uint64_t log2 = header()->table.load(std::memory_order_acquire);
  if (log2 < kMinTableLog2 || log2 > kMaxTableLog2) return false;
  uint64_t mask = (uint64_t{1} << log2) - 1;
  uint64_t i = home(id, static_cast<uint32_t>(log2));
  const DirectoryEntry* t = table(static_cast<uint32_t>(log2));
  for (uint32_t n = 0; n < kProbes; ++n, i = (i + 1) & mask) {
    if (!read_entry(&t[i], out)) return false;
    if (out->state == kDirEmpty) return false;
    if (out->id == id && (copy == 0 || out->copy == copy)) return true;
  }
  return false;
}

void DirectoryReader::for_each(const std::function<bool(const DirectoryRow&)>& fn) const {
  uint64_t log2 = header()->table.load(std::memory_order_acquire);
  if (log2 < kMinTableLog2 || log2 > kMaxTableLog2) return;
  const DirectoryEntry* t = table(static_cast<uint32_t>(log2));
  for (uint64_t i = 0; i < uint64_t{1} << log2; ++i) {
    DirectoryRow row;
    if (!read_entry(&t[i], &row) || row.state == kDirEmpty) continue;
    if (!fn(row)) return;
  }
}

}  // namespace ray::store
