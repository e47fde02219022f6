// Bounds the readable tables of a shard: when a table has grown over its limit, an eighth of it goes, the tasks that
// ended longest ago first. Called by the materialiser, on its thread, between its transactions.
//
// What stays whatever its age: tasks that have not ended, or are to run again; the parents of these and the producers of
// their arguments; the creation of an actor that is not dead. Children, arguments and actors are anywhere: the files of
// the other shards in the directory are asked too. They may be behind, so what ended after the last mark of the
// node's journal (lineage::MarkRecord) that they hold stays as well. Only a table of twice its limit and a million rows
// is cut without that: a shard that is gone for good does not let the others grow for ever. The journal itself is not
// touched.
#pragma once
#include <cstdint>
#include <string>

#include "gcs/sqlite.h"

namespace ray::gcs {

struct PruneLimits {
  uint64_t tasks = 4'000'000;  // rows of tasks, per shard
  uint64_t events = 500'000;   // events and errors, per shard
  uint64_t bytes = uint64_t{2} << 30;  // of all tables of a shard, without the rows of the state machine
  // LIBRAY_TASK_ROWS, LIBRAY_EVENT_ROWS, LIBRAY_TABLE_BYTES; 0 = no limit
  static PruneLimits from_environment();
};

class Pruner {
 public:
  Status open(Database* db, const std::string& dir, uint32_t shard, PruneLimits limits);
  // `tasks` and `events`: rows that were written since the last call, at most. Cheap as long as there is room.
  Status step(uint64_t tasks, uint64_t events);
  // The next step() only counts.
  bool quiet() const;

 private:
  Status prune_tasks();
  Status prune_events();
  Status note_needed(Database* db);
  Status ask_others(int64_t* horizon_ns);
  Status weigh();
  Status measure_state();
  Status in_transaction(Status (Pruner::*body)());
  Result<int64_t> number(const char* sql);

  Database* db_ = nullptr;
  std::string dir_;
  uint32_t shard_ = 0;
  PruneLimits limits_;
  uint64_t tasks_ = 0, events_ = 0;  // rows, at most
  uint64_t keep_tasks_ = 0, keep_events_ = 0;  // what the next round leaves
  uint64_t state_bytes_ = 0;   // of the state machine's rows, as last measured
  int64_t measure_at_ = 0;
  int64_t quiet_until_ = 0;  // the last round could not do all: not again before
  Statement page_count_, free_count_, page_size_;
};

}  // namespace ray::gcs
