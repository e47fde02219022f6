// The views that people read: each code of ray.h has its name there.
#include "gcs/schema.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "libray/base/status.h"

namespace ray::gcs {
namespace {

// As the header's text has them, so that one that is added is known here: the enum behind the type.
std::map<int, std::string> codes_of_the_header() {
  std::ifstream file(LIBRAY_SOURCE "/include/ray.h");
  std::stringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  const size_t begin = all.find("typedef int32_t ray_code;"), end = all.find("};", begin);
  const std::string body = all.substr(begin, end - begin);
  const std::regex entry(R"((RAY_[A-Z_]+) = (\d+))");
  std::map<int, std::string> found;
  for (std::sregex_iterator i(body.begin(), body.end(), entry), last; i != last; ++i) found[std::stoi((*i)[2])] = (*i)[1];
  return found;
}

TEST(Schema, EveryCodeHasItsNameInTheViews) {
  const std::map<int, std::string> codes = codes_of_the_header();
  ASSERT_GE(codes.size(), 23u);
  const std::string dir = testing::TempDir() + "schema-" + std::to_string(::getpid());
  std::filesystem::create_directories(dir);
  auto db = open_database(dir + "/gcs-0.db", true, 1024);
  ASSERT_TRUE(db.ok()) << db.status().message();
  for (const auto& [code, name] : codes) {
    EXPECT_EQ(code_name(code), name);
    const std::string row = strprintf("INSERT INTO task_rows(id, kind, code, end_ns) VALUES(x'%08d', 0, %d, 1)", code, code);
    ASSERT_TRUE(db->exec(row.c_str()).ok()) << db->error("insert").message();
  }
  for (const char* view : {"tasks", "executions"}) {
    Statement rows;
    ASSERT_TRUE(rows.prepare(db->get(), (std::string("SELECT code FROM ") + view).c_str()).ok());
    std::multimap<std::string, int> shown;
    while (rows.row()) shown.emplace(std::string(rows.blob(0)), 0);
    for (const auto& [code, name] : codes)
      EXPECT_EQ(shown.count(name.substr(4)), 1u) << view << " has no name for code " << code << ", " << name;
  }
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace ray::gcs
