// See output.h.
#include "libray/cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <ctime>

#include "libray/base/ids.h"
#include "libray/base/status.h"
#include "libray/wire/msgpack.h"

namespace ray::cli {
namespace {

constexpr int64_t kSecond = 1000000000;

std::string hex_of(std::string_view bytes) {
  static const char digits[] = "0123456789abcdef";
  std::string s;
  for (char c : bytes) {
    s += digits[static_cast<uint8_t>(c) >> 4];
    s += digits[c & 15];
  }
  return s;
}

// Rows' JSON that was cut for its length ends in an ellipsis.
bool looks_like_json(const std::string& text) {
  return !text.empty() && (text.back() == '}' || text.back() == ']');
}

// Keeps `n` characters; the last becomes an ellipsis when something was cut.
std::string fit(const std::string& text, size_t n) {
  if (display_width(text) <= n) return text;
  std::string s;
  size_t kept = 0;
  for (size_t i = 0; i < text.size();) {
    size_t next = i + 1;
    while (next < text.size() && (static_cast<uint8_t>(text[next]) & 0xc0) == 0x80) ++next;
    if (kept + 1 >= n) break;
    s.append(text, i, next - i);
    ++kept;
    i = next;
  }
  return s + "…";
}

}  // namespace

Cell Cell::of(int64_t v) {
  Cell c;
  c.kind = kInteger;
  c.integer = v;
  return c;
}
Cell Cell::of(double v) {
  Cell c;
  c.kind = kReal;
  c.real = v;
  return c;
}
Cell Cell::of(std::string v) {
  Cell c;
  c.kind = kText;
  c.text = std::move(v);
  return c;
}

std::string Cell::to_string() const {
  switch (kind) {
    case kNull: return "";
    case kInteger: return std::to_string(integer);
    case kReal: return strprintf("%g", real);
    case kText: return text;
    case kBlob: return hex_of(text);
  }
  return "";
}

std::string Cell::to_json() const {
  switch (kind) {
    case kNull: return "null";
    case kInteger: return std::to_string(integer);
    case kReal: return std::isfinite(real) ? strprintf("%.17g", real) : "null";
    case kText: return wire::json_quote(text);
    case kBlob: return wire::json_quote(hex_of(text));
  }
  return "null";
}

bool less(const Cell& a, const Cell& b) {
  auto rank = [](const Cell& c) {
    return c.is_null() ? 0 : c.kind == Cell::kInteger || c.kind == Cell::kReal ? 1 : 2;
  };
  if (rank(a) != rank(b)) return rank(a) < rank(b);
  if (rank(a) == 1) {
    if (a.kind == Cell::kInteger && b.kind == Cell::kInteger) return a.integer < b.integer;
    auto number = [](const Cell& c) {
      return c.kind == Cell::kReal ? c.real : static_cast<double>(c.integer);
    };
    return number(a) < number(b);
  }
  return a.text < b.text;
}

int Rows::column(std::string_view name) const {
  for (size_t i = 0; i < columns.size(); ++i)
    if (columns[i] == name) return static_cast<int>(i);
  return -1;
}

const Cell& Rows::at(size_t row, std::string_view name) const {
  static const Cell kNone;
  int c = column(name);
  return c < 0 || row >= rows.size() ? kNone : rows[row][static_cast<size_t>(c)];
}

void Table::column(std::string title, Align align, size_t narrow) {
  columns_.push_back({std::move(title), align, narrow});
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  for (auto& c : cells) c = printable(c);
  rows_.push_back(std::move(cells));
}

void Table::print(std::FILE* out, size_t width) const {
  std::vector<size_t> widths;
  size_t total = columns_.empty() ? 0 : 2 * (columns_.size() - 1);
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t w = display_width(columns_[c].title);
    for (const auto& r : rows_) w = std::max(w, display_width(r[c]));
    widths.push_back(w);
    total += w;
  }
  // Too wide: the widest column that may shrink gives way, one character at a time.
  while (width > 0 && total > width) {
    size_t widest = columns_.size();
    for (size_t c = 0; c < columns_.size(); ++c) {
      size_t least = std::max(columns_[c].narrow, display_width(columns_[c].title));
      if (columns_[c].narrow == 0 || widths[c] <= least) continue;
      if (widest == columns_.size() || widths[c] > widths[widest]) widest = c;
    }
    if (widest == columns_.size()) break;
    --widths[widest];
    --total;
  }
  auto line = [&](const std::vector<std::string>& cells) {
    std::string s;
    for (size_t c = 0; c < cells.size(); ++c) {
      std::string text = fit(cells[c], widths[c]);
      std::string space(widths[c] - display_width(text), ' ');
      if (c > 0) s += "  ";
      s += columns_[c].align == kRight ? space + text : text + space;
    }
    while (!s.empty() && s.back() == ' ') s.pop_back();
    std::fprintf(out, "%s\n", s.c_str());
  };
  std::vector<std::string> titles;
  for (const auto& c : columns_) titles.push_back(c.title);
  line(titles);
  for (const auto& r : rows_) line(r);
}

size_t terminal_width() {
  if (!::isatty(1)) return 0;
  if (const char* env = std::getenv("COLUMNS")) {
    long n = std::strtol(env, nullptr, 10);
    if (n >= 40 && n <= 1000) return static_cast<size_t>(n);
  }
  winsize w{};
  if (::ioctl(1, TIOCGWINSZ, &w) == 0 && w.ws_col >= 40) return w.ws_col;
  return 120;
}

void print_json(std::FILE* out, const Rows& rows, const std::vector<std::string>& json_columns) {
  std::vector<bool> is_json;
  for (const auto& c : rows.columns)
    is_json.push_back(std::find(json_columns.begin(), json_columns.end(), c) != json_columns.end());
  std::fputs("[", out);
  for (size_t r = 0; r < rows.rows.size(); ++r) {
    std::string s = r > 0 ? ",\n {" : "\n {";
    for (size_t c = 0; c < rows.columns.size(); ++c) {
      const Cell& cell = rows.rows[r][c];
      if (c > 0) s += ", ";
      s += wire::json_quote(rows.columns[c]) + ": ";
      bool raw = is_json[c] && cell.kind == Cell::kText && looks_like_json(cell.text);
      s += raw ? cell.text : cell.to_json();
    }
    std::fprintf(out, "%s}", s.c_str());
  }
  std::fputs(rows.rows.empty() ? "]\n" : "\n]\n", out);
}

std::string human_bytes(uint64_t n) {
  static const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  if (n < 1024) return std::to_string(n) + " B";
  double v = static_cast<double>(n);
  size_t u = 0;
  while (v >= 1023.95 && u + 1 < std::size(units)) v /= 1024, ++u;
  return strprintf(v < 10 ? "%.2f %s" : v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

std::string human_duration(int64_t ns) {
  if (ns < 0) return "-" + human_duration(ns == INT64_MIN ? INT64_MAX : -ns);
  if (ns < 1000) return strprintf("%lld ns", static_cast<long long>(ns));
  double v = static_cast<double>(ns);
  auto three = [](double x, const char* unit) {
    return strprintf(x < 10 ? "%.2f %s" : x < 100 ? "%.1f %s" : "%.0f %s", x, unit);
  };
  if (v < 999.5e3) return three(v / 1e3, "us");
  if (v < 999.5e6) return three(v / 1e6, "ms");
  if (v < 60e9) return three(v / 1e9, "s");
  auto s = static_cast<long long>(ns / kSecond);
  if (s < 3600) return strprintf("%lld m %lld s", s / 60, s % 60);
  if (s < 86400) return strprintf("%lld h %lld m", s / 3600, s / 60 % 60);
  return strprintf("%lld d %lld h", s / 86400, s / 3600 % 24);
}

std::string local_time(int64_t wall_ns, int64_t now_ns) {
  auto to_tm = [](int64_t ns) {
    std::time_t t = ns / kSecond;
    std::tm tm{};
    localtime_r(&t, &tm);
    return tm;
  };
  std::tm then = to_tm(wall_ns), today = to_tm(now_ns);
  char text[64];
  bool same_day = then.tm_year == today.tm_year && then.tm_yday == today.tm_yday;
  std::strftime(text, sizeof text, same_day ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &then);
  return same_day ? strprintf("%s.%03d", text, static_cast<int>(wall_ns % kSecond / 1000000))
                  : text;
}

std::string ago(int64_t wall_ns, int64_t now_ns) {
  int64_t d = now_ns - wall_ns;
  bool future = d < 0;
  if (future) d = -d;
  long long s = d / kSecond;
  std::string text = s < 60      ? strprintf("%lld s", s)
                     : s < 3600  ? strprintf("%lld m", s / 60)
                     : s < 86400 ? strprintf("%lld h", s / 3600)
                                 : strprintf("%lld d", s / 86400);
  return future ? "in " + text : text + " ago";
}

std::string with_commas(uint64_t n) {
  std::string s = std::to_string(n);
  for (size_t at = s.size(); at > 3; at -= 3) s.insert(at - 3, ",");
  return s;
}

size_t display_width(std::string_view text) {
  size_t n = 0;
  for (char c : text) n += (static_cast<uint8_t>(c) & 0xc0) != 0x80;
  return n;
}

std::string printable(std::string_view text) {
  std::string s;
  bool utf8 = wire::is_utf8(text);
  for (char c : text) {
    auto u = static_cast<uint8_t>(c);
    bool control = u < 0x20 || u == 0x7f;
    s += control ? ' ' : !utf8 && u >= 0x80 ? '?' : c;
  }
  return s;
}

std::string short_id(std::string_view hex) {
  Id id;
  if (!Id::from_hex(hex, &id)) return std::string(hex);
  std::string s = std::string(hex.substr(0, 8)) + strprintf("..%x", id.submit_index());
  uint32_t o = id.object_index();
  if (o == 0) return s;
  if (o == kActorIndex) return s + ":a";
  if (o & kPutIndexBit) return s + strprintf(":p%u", o & ~kPutIndexBit);
  return s + strprintf(":r%u", o - 1);
}

std::string shorten_ids(const std::string& text) {
  constexpr size_t kDigits = 2 * kIdSize;
  auto is_hex = [&](size_t i) { return std::isxdigit(static_cast<unsigned char>(text[i])) != 0; };
  std::string s;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && is_hex(end)) ++end;
    if (end == i) {
      s += text[i++];
      continue;
    }
    s += end - i == kDigits ? short_id(std::string_view(text).substr(i, kDigits))
                            : text.substr(i, end - i);
    i = end;
  }
  return s;
}

}  // namespace ray::cli
