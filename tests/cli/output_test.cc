// Formatting: widths, ids, times, sizes.
#include "libray/cli/output.h"

#include <gtest/gtest.h>

#include "libray/base/ids.h"
#include "libray/wire/msgpack.h"

namespace ray::cli {
namespace {

std::string print(const Table& t, size_t width) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* f = open_memstream(&text, &size);
  t.print(f, width);
  std::fclose(f);
  std::string s(text, size);
  std::free(text);
  return s;
}

TEST(Output, TablesAlignShrinkAndNeverBreakLines) {
  Table t;
  t.column("ID");
  t.column("TEXT", Table::kLeft, 8);
  t.column("N", Table::kRight);
  t.row({"a", "ümlaut\nand more text that is long", "5"});
  t.row({"bb", "short", "1234"});
  EXPECT_EQ(print(t, 0),
            "ID  TEXT                                  N\n"
            "a   ümlaut and more text that is long     5\n"
            "bb  short                              1234\n");
  EXPECT_EQ(print(t, 24),
            "ID  TEXT               N\n"
            "a   ümlaut and mo…     5\n"
            "bb  short           1234\n");
  // Narrower than what may shrink: columns keep their least width.
  EXPECT_EQ(print(t, 5), print(t, 10));
  t.row({"c", "\x1b[31mred\xff", "0"});
  EXPECT_EQ(print(t, 0).find('\x1b'), std::string::npos);
}

TEST(Output, Sizes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(64 << 20), "64.0 MiB");
  EXPECT_EQ(human_bytes((uint64_t{1} << 30) - 1), "1.00 GiB");
  EXPECT_EQ(human_bytes(UINT64_MAX), "16384 PiB");
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1234567), "1,234,567");
}

TEST(Output, Durations) {
  EXPECT_EQ(human_duration(999), "999 ns");
  EXPECT_EQ(human_duration(1500), "1.50 us");
  EXPECT_EQ(human_duration(999600), "1.00 ms");
  EXPECT_EQ(human_duration(12345678), "12.3 ms");
  EXPECT_EQ(human_duration(59900000000), "59.9 s");
  EXPECT_EQ(human_duration(192000000000), "3 m 12 s");
  EXPECT_EQ(human_duration(7384000000000), "2 h 3 m");
  EXPECT_EQ(human_duration(90000000000000), "1 d 1 h");
  EXPECT_EQ(human_duration(-1500), "-1.50 us");
  EXPECT_FALSE(human_duration(INT64_MIN).empty());
}

TEST(Output, TimesAreLocalAndRelative) {
  setenv("TZ", "UTC", 1);
  tzset();
  int64_t now = 1700000000123456789;  // 2023-11-14 22:13:20
  EXPECT_EQ(local_time(now, now), "22:13:20.123");
  EXPECT_EQ(local_time(now - 86400000000000, now), "2023-11-13 22:13:20");
  EXPECT_EQ(ago(now - 5000000000, now), "5 s ago");
  EXPECT_EQ(ago(now - 125000000000, now), "2 m ago");
  EXPECT_EQ(ago(now - 7200000000000, now), "2 h ago");
  EXPECT_EQ(ago(now - 200000000000000, now), "2 d ago");
  EXPECT_EQ(ago(now + 5000000000, now), "in 5 s");
}

TEST(Output, ShortIdsTellSiblingsApart) {
  TaskId task = child_task(origin_of(Id{}), 42);
  std::string head = task.hex().substr(0, 8);
  EXPECT_EQ(short_id(task.hex()), head + "..2a");
  EXPECT_EQ(short_id(return_object(task, 1).hex()), head + "..2a:r1");
  EXPECT_EQ(short_id(put_object(task, 3).hex()), head + "..2a:p3");
  EXPECT_EQ(short_id(actor_of(task).hex()), head + "..2a:a");
  EXPECT_EQ(short_id("no id"), "no id");
  EXPECT_EQ(shorten_ids("5, " + task.hex() + ", x"), "5, " + short_id(task.hex()) + ", x");
  EXPECT_EQ(shorten_ids(task.hex() + "0"), task.hex() + "0");
  EXPECT_EQ(shorten_ids(""), "");
}

TEST(Output, CellsSortNullsNumbersText) {
  EXPECT_TRUE(less(Cell(), Cell::of(int64_t{-5})));
  EXPECT_TRUE(less(Cell::of(int64_t{2}), Cell::of(2.5)));
  EXPECT_TRUE(less(Cell::of(int64_t{INT64_MAX - 1}), Cell::of(int64_t{INT64_MAX})));
  EXPECT_TRUE(less(Cell::of(int64_t{9}), Cell::of(std::string("1"))));
  EXPECT_FALSE(less(Cell::of(std::string("b")), Cell::of(std::string("a"))));
  EXPECT_EQ(Cell::of(std::string("a\"\n")).to_json(), "\"a\\\"\\n\"");
  EXPECT_EQ(Cell().to_json(), "null");
}

}  // namespace
}  // namespace ray::cli
