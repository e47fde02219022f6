// The readable database of a shard, "gcs-<shard>.db": its tables, its views, and opening it.
//
// Base tables (*_rows, state, dedup, meta) are compact and written by the materialiser alone; views give
// them to people: plain sqlite3 answers "which tasks ran, where, when, with what arguments, with what
// result" from tasks, task_args, executions, objects, actors, functions, nodes, jobs, events, errors, kv.
#pragma once
#include <string>

#include "gcs/sqlite.h"

namespace ray::gcs {

std::string database_path(const std::string& dir, uint32_t shard);
// Opens, and makes or checks the schema when `create`. A database of another schema is refused.
Result<Database> open_database(const std::string& path, bool create, int cache_kib);

// "SELECT … FROM …" of the views with the base columns that a query may filter by index: t.id and so on.
extern const char kSelectTasks[];
extern const char kSelectObjects[];

}  // namespace ray::gcs
