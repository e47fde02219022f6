// The spill file: where unpinned objects go when memory is full. One unnamed file in spill_dir, so
// that nothing is left behind however the daemon ends; space inside it is handed out in runs, and a
// freed run is punched out of the file.
//
// reserve/release: store thread. write/read: job threads, on disjoint runs.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "libray/base/shm.h"
#include "libray/base/status.h"
#include "store/space.h"

namespace ray::store {

struct SpillPiece {  // one object in a run
  const uint8_t* data = nullptr;
  uint64_t size = 0;
  uint64_t at = 0;        // offset in the file
  uint64_t checksum = 0;  // filled by write
};

class SpillFile {
 public:
  SpillFile(std::string dir, uint64_t limit);  // empty dir = no spilling; limit 0 = the disk's
  bool enabled() const { return !dir_.empty(); }
  // A run of the file for `bytes`; RAY_STORE_FULL when the limit is reached or the file cannot be
  // made.
  Result<uint64_t> reserve(uint64_t bytes);
  void release(uint64_t at, uint64_t bytes);
  // Gives the disk blocks of a released run back: job thread, before release().
  void discard(uint64_t at, uint64_t bytes) const;
  Status write(std::vector<SpillPiece>* pieces) const;
  // step is called after each piece; when it says false the read ends with RAY_CANCELLED.
  Status read(uint64_t at, uint64_t size, uint64_t checksum, uint8_t* out,
              const std::function<bool()>& step = nullptr) const;
  uint64_t used() const { return used_; }
  const std::string& dir() const { return dir_; }

 private:
  Status open();
  const std::string dir_;
  const uint64_t limit_;
  Fd fd_;
  uint64_t used_ = 0;
  Space space_;
};

}  // namespace ray::store
