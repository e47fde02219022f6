// kv list, kv get: the key-value table. Keys and values are bytes; a key is stored as namespace,
// nul, key.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "libray/cli/commands.h"
#include "libray/cli/session_files.h"
#include "libray/wire/msgpack.h"

namespace ray::cli {
namespace {

constexpr int64_t kKvTable = 11;  // gcs::Table::kKv, as the shards' view "kv" has it

Result<Records> open(const Common& c) {
  auto session = find_living_session(c.session);
  if (!session.ok()) return session.status();
  return Records::open(*session);
}

}  // namespace

Status kv_list(const Common& common, const std::string& ns, const std::string& prefix) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  std::string sql = "SELECT ns, key, version, size, value_hex FROM kv";
  std::vector<Param> params;
  if (!ns.empty()) {
    sql += " WHERE ns=?";
    params.push_back(ns);
  }
  auto rows = records->query(sql, params, "key");
  if (!rows.ok()) return rows.status();
  auto& all = rows->rows;
  auto other = [&](const auto& row) { return row[1].text.rfind(prefix, 0) != 0; };
  all.erase(std::remove_if(all.begin(), all.end(), other), all.end());
  bool cut = common.limit > 0 && all.size() > common.limit;
  if (cut) all.resize(common.limit);
  if (common.json) {
    print_json(stdout, *rows);
    return Status();
  }
  if (all.empty()) {
    std::printf("no keys\n");
    return Status();
  }
  Table t;
  t.column("NAMESPACE");
  t.column("KEY", Table::kLeft, 16);
  t.column("VERSION", Table::kRight);
  t.column("SIZE", Table::kRight);
  for (size_t i = 0; i < all.size(); ++i)
    t.row({rows->at(i, "ns").to_string(), rows->at(i, "key").to_string(),
           rows->at(i, "version").to_string(),
           human_bytes(static_cast<uint64_t>(rows->at(i, "size").integer))});
  t.print(stdout, common.full ? 0 : terminal_width());
  if (cut) std::printf("(the first %zu keys; --limit 0 shows all)\n", common.limit);
  return Status();
}

Status kv_get(const Common& common, const std::string& ns, const std::string& key, bool as_text) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  auto rows = records->query(
      "SELECT version, value FROM state WHERE tbl=? AND key=CAST(?||char(0)||? AS BLOB)",
      {kKvTable, ns, key});
  if (!rows.ok()) return rows.status();
  if (rows->rows.empty())
    return error(RAY_NOT_FOUND, "no key '%s' in namespace '%s'", key.c_str(), ns.c_str());
  const std::string& value = rows->rows[0][1].text;
  if (common.json) {
    std::printf("{\"ns\": %s, \"key\": %s, \"version\": %s, \"value\": %s}\n",
                wire::json_quote(ns).c_str(), wire::json_quote(key).c_str(),
                rows->rows[0][0].to_string().c_str(),
                wire::is_utf8(value) ? wire::json_quote(value).c_str()
                                     : rows->rows[0][1].to_json().c_str());
    return Status();
  }
  if (as_text) {
    std::printf("%s\n", wire::to_text(value, SIZE_MAX / 2).c_str());
    return Status();
  }
  std::fwrite(value.data(), 1, value.size(), stdout);  // the bytes as they are, for pipes
  if (::isatty(1) && (value.empty() || value.back() != '\n')) std::printf("\n");
  return Status();
}

}  // namespace ray::cli
