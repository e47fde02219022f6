// The operations of the control store's state machine (tables.h), one member function each. Private to
// tables.cc and table_ops.cc; pure; the thread of whoever calls Tables::step.
//
// A member function reads its arguments, looks rows up with find() (if blocked() then, a row must first
// be loaded from disk and the whole operation runs again), and lists its changes with set() and erase();
// nothing is changed until all of it has been evaluated.
#pragma once
#include <vector>

#include "libray/wire/cursor.h"
#include "gcs/tables.h"

namespace ray::gcs {

struct Ops {
  Ops(Tables& tables, const Request& request, int64_t now_ns, const std::vector<Range>& loaded_ranges,
      Outcome* outcome)
      : t(tables), q(request), now(now_ns), loaded(loaded_ranges), out(outcome), in(request.args),
        answer(&outcome->answer) {}
  void run();

  std::vector<Change> changes;

 private:
  void dispatch();
  void ping();
  void hello();
  void poll();
  void query();
  void function_define();
  void function_get();
  void function_forget();
  void kv_get();
  void kv_put();
  void kv_delete();
  void kv_list();
  void actor_register();
  void actor_update();
  void actor_info();
  void name_claim();
  void name_release();
  void actor_find();
  void log_append();
  void log_read();
  void log_trim();
  void merge_put(Table table, const char* id_column);
  void record_add(Table table);
  void object_put();
  void object_get();
  void task_put();
  void task_get();

  // The living row of a key, or null. With values: its value is in RAM.
  Row* find(Table table, std::string_view key, bool with_value = true);
  bool blocked() const { return out->kind != Outcome::kDone; }
  // False: the range must be loaded first (blocked).
  bool have_range(Table table, std::string first, std::string end, bool values);
  bool args_ok(size_t n);  // all arguments were read and there were n of them
  void set(Table table, std::string_view key, std::string value);
  uint64_t next_version(Table table, const Row* old) const;
  void erase(Table table, std::string_view key);
  void fail(int32_t code, std::string text) {
    out->code = code;
    out->text = std::move(text);
  }
  bool read_kv_key(std::string* key);
  void log_end_answer(uint64_t end) { answer.array(1).uint64(end); }

  Tables& t;
  const Request& q;
  int64_t now;
  const std::vector<Range>& loaded;
  Outcome* out;
  wire::Cursor in;
  wire::Writer answer;
  size_t n_args = 0;
};

// The value of a column of a map row; empty when absent.
std::string_view map_get(std::string_view map, std::string_view column);
// `base` with the columns of `update` replaced or added; empty when either is no map or it grows beyond
// 64 columns.
std::string map_merge(std::string_view base, std::string_view update);
// Whether a filter's value means the same as a row's.
bool same_value(std::string_view x, std::string_view y);
// The shortest string that is greater than every string with this prefix; empty = none.
std::string prefix_end(std::string_view prefix);
std::string big_endian(uint64_t v);

}  // namespace ray::gcs
