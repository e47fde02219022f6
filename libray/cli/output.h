// What the tool prints: cells, tables that fit the terminal, JSON, times and sizes for people.
// One thread. No I/O but in Table::print and print_json.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace ray::cli {

// One value of a row, as SQLite has it. Blobs are bytes in `text`.
struct Cell {
  enum Kind { kNull, kInteger, kReal, kText, kBlob } kind = kNull;
  int64_t integer = 0;
  double real = 0;
  std::string text;

  static Cell of(int64_t v);
  static Cell of(double v);
  static Cell of(std::string v);
  bool is_null() const { return kind == kNull; }
  std::string to_string() const;  // empty for null; blobs as hex
  std::string to_json() const;
};
bool less(const Cell& a, const Cell& b);  // null first, then numbers, then text

struct Rows {
  std::vector<std::string> columns;
  std::vector<std::vector<Cell>> rows;
  int column(std::string_view name) const;  // -1 = there is none
  // The cell, or a null cell.
  const Cell& at(size_t row, std::string_view name) const;
};

// A table for people. A column may shrink to `narrow` characters when the terminal is too small;
// the text is then cut with "…". On a pipe nothing is cut.
class Table {
 public:
  enum Align { kLeft, kRight };
  void column(std::string title, Align align = kLeft, size_t narrow = 0);
  void row(std::vector<std::string> cells);
  size_t size() const { return rows_.size(); }
  void print(std::FILE* out, size_t width) const;  // width 0 = as wide as it takes

 private:
  struct Column {
    std::string title;
    Align align;
    size_t narrow;
  };
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Columns of the terminal at stdout; 0 when it is none.
size_t terminal_width();
// Rows as a JSON array of objects. Columns named in `json_columns` hold JSON text already.
void print_json(std::FILE* out, const Rows& rows,
                const std::vector<std::string>& json_columns = {});

std::string human_bytes(uint64_t n);     // "1.5 MiB"
std::string human_duration(int64_t ns);  // "1.24 ms", "3 m 12 s"
std::string local_time(int64_t wall_ns,
                       int64_t now_ns);            // "14:03:22.123", other days with the date
std::string ago(int64_t wall_ns, int64_t now_ns);  // "3 m ago", "in 2 s"
std::string with_commas(uint64_t n);               // "1,234,567"
// Width on a terminal: characters, not bytes; control characters are replaced before.
size_t display_width(std::string_view text);
std::string printable(std::string_view text);  // one line, no control characters

// Ids for people: "1cdf5a68..2a" a task, "1cdf5a68..2a:r0" its first return, ":p3" the fourth
// object it put,
// ":a" the actor it made. `hex` shorter or longer than an id is returned as it is.
std::string short_id(std::string_view hex);
// The text with every whole id in it shortened.
std::string shorten_ids(const std::string& text);

}  // namespace ray::cli
