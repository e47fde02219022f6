// The commands of workers of each language, from what a job and its environment say.
#include "libray/node/worker_command.h"

#include <gtest/gtest.h>

#include "ray.h"

namespace ray::node {
namespace {

using Words = std::vector<std::string>;

Words command(int32_t language, const WorkerCommand& given, const Environment& env) {
  Words argv;
  Status s = make_worker_command(language, given, env, "/nowhere", &argv);
  return s.ok() ? argv : Words{"failed", s.message()};
}

TEST(WorkerCommand, WhatTheJobSaysGoesFirst) {
  const WorkerCommand given{{"prog", "arg"}, "code"};
  for (int32_t language = 0; language < RAY_LANG_COUNT; ++language)
    EXPECT_EQ(command(language, given, {{"LIBRAY_RUST_CODE", "other"}}), (Words{"prog", "arg"}));
}

TEST(WorkerCommand, CodeGoesBeforeTheEnvironment) {
  EXPECT_EQ(command(RAY_LANG_RUST, {{}, "mine"}, {{"LIBRAY_RUST_CODE", "other"}}), Words{"mine"});
  EXPECT_EQ(command(RAY_LANG_RUST, {}, {{"LIBRAY_RUST_CODE", "other"}}), Words{"other"});
  EXPECT_EQ(command(RAY_LANG_NATIVE, {}, {{"LIBRAY_NATIVE_CODE", "prog"}}), Words{"prog"});
}

TEST(WorkerCommand, Java) {
  EXPECT_EQ(command(RAY_LANG_JAVA, {{}, "a.jar:b"}, {}),
            (Words{"java", "-XX:+UseSerialGC", "-Xms8m", "-XX:-UsePerfData", "-XX:ReservedCodeCacheSize=64m", "-cp",
                   "a.jar:b", "org.libray.WorkerMain"}));
  const Words with = command(RAY_LANG_JAVA, {}, {{"LIBRAY_JAVA_CODE", "c.jar"}, {"JAVA_HOME", "/opt/jdk"},
                                                 {"LIBRAY_JAVA_OPTIONS", " -Xmx1g  -ea "}});
  ASSERT_EQ(with.size(), 10u);
  EXPECT_EQ(with[0], "/opt/jdk/bin/java");
  EXPECT_EQ(Words(with.begin() + 5, with.end()), (Words{"-Xmx1g", "-ea", "-cp", "c.jar", "org.libray.WorkerMain"}));
}

TEST(WorkerCommand, Python) {
  EXPECT_EQ(command(RAY_LANG_PYTHON, {}, {}), (Words{"python3", "-m", "libray._zygote"}));
  EXPECT_EQ(command(RAY_LANG_PYTHON, {}, {{"LIBRAY_PYTHON", "/opt/python"}})[0], "/opt/python");
  Environment env = {{"PYTHONPATH", "/old"}};
  add_code_to_environment(RAY_LANG_PYTHON, {{}, "/a:/b"}, &env);
  EXPECT_EQ(env["PYTHONPATH"], "/a:/b:/old");
  Environment empty = {{"LIBRAY_PYTHON_CODE", "/c"}};
  add_code_to_environment(RAY_LANG_PYTHON, {}, &empty);
  EXPECT_EQ(empty["PYTHONPATH"], "/c");
  Environment other;
  add_code_to_environment(RAY_LANG_JAVA, {{}, "/a"}, &other);
  EXPECT_TRUE(other.empty());
}

TEST(WorkerCommand, WhatIsMissingIsNamed) {
  EXPECT_NE(command(RAY_LANG_JAVA, {}, {})[1].find("no command for Java workers"), std::string::npos);
  EXPECT_NE(command(RAY_LANG_RUST, {}, {})[1].find("LIBRAY_RUST_CODE"), std::string::npos);
  EXPECT_NE(command(RAY_LANG_NATIVE, {}, {})[1].find("/nowhere/libray-worker"), std::string::npos);
  for (int32_t language : {-1, int32_t{RAY_LANG_COUNT}, 1 << 30})
    EXPECT_NE(command(language, {}, {})[1].find("none of RAY_LANG_*"), std::string::npos);
}

}  // namespace
}  // namespace ray::node
