// The directory: id and name of a copy -> where it is. An open-addressing hash table in a memfd, one
// sequence lock per entry, that the daemon alone writes and every client maps read-only. Asked for no
// copy in particular (name 0) it gives any of that id.
//
// DirectoryWriter: the daemon's store thread. DirectoryReader: any thread of any process; a reader
// never waits for the writer: what it cannot read in a few tries is a miss, and a miss asks the
// daemon.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "libray/base/shm.h"
#include "store/layout.h"

namespace ray::store {

struct DirectoryRow {
  ObjectId id;
  DirectoryState state = kDirEmpty;
  Location location;
  uint32_t object = 0;  // the daemon's number of it
  CopyName copy = 0;
};

class DirectoryWriter {
 public:
  static Result<DirectoryWriter> create(uint64_t capacity, uint32_t small_extent, uint64_t arena);
  DirectoryHeader* header() const { return reinterpret_cast<DirectoryHeader*>(map_.data()); }
  int readonly_fd() const { return readonly_.get(); }
  // False when the table cannot grow any more.
  bool insert(const DirectoryRow& row);
  bool find(const ObjectId& id, CopyName copy, DirectoryRow* out) const;
  void find_all(const ObjectId& id, std::vector<DirectoryRow>* out) const;
  void update(const DirectoryRow& row);  // of a copy that is there
  void erase(const ObjectId& id, CopyName copy);
  uint64_t size() const { return size_; }
  // Gives the pages of a table that became much too large back.
  void shrink_if_sparse();

 private:
  DirectoryEntry* table(uint32_t log2) const {
    return reinterpret_cast<DirectoryEntry*>(map_.data() + table_at(log2));
  }
  uint64_t probe(const ObjectId& id, CopyName copy, bool* found) const;
  void rehash(uint32_t log2);
  Fd fd_, readonly_;
  Mapping map_;
  uint32_t log2_ = kMinTableLog2;
  uint64_t size_ = 0;
};

class DirectoryReader {
 public:
  DirectoryReader() = default;
  explicit DirectoryReader(const uint8_t* base) : base_(base) {}
  const DirectoryHeader* header() const { return reinterpret_cast<const DirectoryHeader*>(base_); }
  bool find(const ObjectId& id, CopyName copy, DirectoryRow* out) const;
  void for_each(const std::function<bool(const DirectoryRow&)>& fn) const;  // false stops

 private:
  const DirectoryEntry* table(uint32_t log2) const {
    return reinterpret_cast<const DirectoryEntry*>(base_ + table_at(log2));
  }
  const uint8_t* base_ = nullptr;
};

// A second, read-only descriptor of a memfd: whoever gets it can never map it writable.
Result<Fd> reopen_readonly(int fd);

}  // namespace ray::store
