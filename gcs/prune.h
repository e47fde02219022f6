// Bounds the readable tables of a shard: when a table has grown over its limit, an eighth of it goes, the tasks that
// ended longest ago first. Called by the materialiser, on its thread, between its transactions.
//
// What stays whatever its age: tasks that have not ended; the parents of these and the producers of their arguments;
// the creation of an actor that is not dead. The journal itself is not touched.
#pragma once
#include <cstdint>

#include "gcs/sqlite.h"

namespace ray::gcs {

struct PruneLimits {
  uint64_t tasks = 4'000'000;  // rows of tasks, per shard
  uint64_t events = 500'000;   // events and errors, per shard
  static PruneLimits from_environment();  // LIBRAY_TASK_ROWS, LIBRAY_EVENT_ROWS; 0 = no limit
};

class Pruner {
 public:
  Status open(Database* db, PruneLimits limits);
  // `tasks` and `events`: rows that were written since the last call, at most. Cheap as long as there is room.
  Status step(uint64_t tasks, uint64_t events);

 private:
  Status prune_tasks();
  Status prune_events();
  Status in_transaction(Status (Pruner::*body)());
  Result<int64_t> number(const char* sql);

  Database* db_ = nullptr;
  PruneLimits limits_;
  uint64_t tasks_ = 0, events_ = 0;  // rows, at most
};

}  // namespace ray::gcs
