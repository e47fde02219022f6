// Reads rows of the state machine back from the readable database: all of them at a start, evicted ones
// when an operation needs them. Owned by the service; one thread.
#pragma once
#include <memory>
#include <string>

#include "gcs/sqlite.h"
#include "gcs/tables.h"

namespace ray::gcs {

class StateReader {
 public:
  static Result<std::unique_ptr<StateReader>> open(const std::string& database_path);
  // Deduplication, node journals and as many rows as fit `ram_bytes`.
  Status restore(Tables* tables, uint64_t ram_bytes);
  Status load_row(Tables* tables, Table table, std::string_view key);
  Status load_range(Tables* tables, const Range& range);

 private:
  Database db_;
  Statement row_, range_;
};

}  // namespace ray::gcs
