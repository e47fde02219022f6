// Status, log and fault points.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <thread>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/shm.h"
#include "libray/base/status.h"

namespace ray {
namespace {

TEST(Status, FormatsAndCarriesErrno) {
  EXPECT_TRUE(Status().ok());
  Status s = error(RAY_NOT_FOUND, "no '%s' in %d", "key", 3);
  EXPECT_EQ(s.code(), RAY_NOT_FOUND);
  EXPECT_EQ(s.message(), "no 'key' in 3");
  errno = ENOENT;
  EXPECT_EQ(errno_error(RAY_UNAVAILABLE, "cannot open").message(),
            "cannot open: No such file or directory");
  EXPECT_EQ(strprintf("%s", std::string(100000, 'x').c_str()).size(), 100000u);
  EXPECT_EQ(strprintf("%s", "").size(), 0u);
  Result<int> good(5), bad(error(RAY_INTERNAL, "x"));
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(*good, 5);
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), RAY_INTERNAL);
}

TEST(Status, NamesOfCodes) {
  EXPECT_STREQ(code_name(RAY_OK), "RAY_OK");
  EXPECT_STREQ(code_name(RAY_CONFLICT), "RAY_CONFLICT");
  EXPECT_STREQ(code_name(RAY_TASK_FAILED), "RAY_TASK_FAILED");
  EXPECT_STREQ(code_name(RAY_OBJECT_LOST), "RAY_OBJECT_LOST");
  EXPECT_STREQ(code_name(RAY_NODE_DIED), "RAY_NODE_DIED");
  EXPECT_STREQ(code_name(RAY_UNKNOWN_FUNCTION), "RAY_UNKNOWN_FUNCTION");
  for (ray_code c : {-1, 12, 99, 111, INT32_MAX, INT32_MIN})
    EXPECT_STREQ(code_name(c), "RAY_UNKNOWN");
}

struct Line {
  int32_t level;
  std::string module, id, text;
};
struct Lines {
  std::mutex mutex;
  std::vector<Line> all;
  static void add(int32_t level, const char* module, const char* id, const char* text, void* user) {
    auto* self = static_cast<Lines*>(user);
    std::lock_guard lock(self->mutex);
    self->all.push_back({level, module, id, text});
  }
};

class Log : public testing::Test {
 protected:
  void SetUp() override { set_log_handler(Lines::add, kLogInfo, &lines); }
  void TearDown() override { set_log_handler(nullptr, kLogWarning, nullptr); }
  Lines lines;
};

TEST_F(Log, FiltersByLevelAndKeepsOneLine) {
  log(kLogDebug, "test", "hidden", "no");
  errno = EINTR;
  log(kLogInfo, "test", "shown", "a %d\nforged line\x1b[31m", 1);
  EXPECT_EQ(errno, EINTR);
  log(kLogError, "test", "long", "%s", std::string(10000, 'x').c_str());
  ASSERT_EQ(lines.all.size(), 2u);
  EXPECT_EQ(lines.all[0].id, "shown");
  EXPECT_EQ(lines.all[0].module, "test");
  EXPECT_EQ(lines.all[0].text, "a 1 forged line [31m");
  EXPECT_LT(lines.all[1].text.size(), 3000u);
}

TEST_F(Log, HandlerMayChangeWhileOthersLog) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 2000; ++i) log(kLogInfo, "test", "many", "%d", i);
    });
  for (int i = 0; i < 200; ++i) set_log_handler(Lines::add, i % 2 ? kLogInfo : kLogWarning, &lines);
  for (auto& t : threads) t.join();
}

TEST(LogOutput, GoesToStderrWithIdentityAndEndsInANewline) {
  int p[2];
  ASSERT_EQ(::pipe(p), 0);
  int child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::dup2(p[1], 2);
    set_log_identity("gcs-0");
    log(kLogWarning, "store", "full", "%s", std::string(5000, 'y').c_str());
    log(kLogWarning, "store", "next", "second");
    ::_exit(0);
  }
  ::close(p[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(p[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  ::close(p[0]);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_EQ(text.back(), '\n');
  EXPECT_NE(text.find(" W libray gcs-0["), std::string::npos);
  EXPECT_NE(text.find("] next: second\n"), std::string::npos);
}

// A full disk takes nothing for a while: what is lost is counted, and told where it would be.
TEST(LogOutput, LinesThatADiskDoesNotTakeAreCounted) {
  char path[] = "/tmp/libray-full-log-XXXXXX";
  int file = ::mkstemp(path);
  ASSERT_GE(file, 0);
  int child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int full = ::open("/dev/full", O_WRONLY);
    ::dup2(full, 2);
    for (int i = 0; i < 3; ++i) log(kLogWarning, "test", "lost", "gone %d", i);
    if (log_lines_lost() != 3) ::_exit(1);
    ::dup2(file, 2);
    log(kLogWarning, "test", "kept", "kept");
    if (log_lines_lost() != 0) ::_exit(2);
    ::close(2);
    log(kLogWarning, "test", "closed", "nobody is told about a closed descriptor");
    ::_exit(log_lines_lost() == 0 ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  char text[4096];
  ssize_t n = ::pread(file, text, sizeof text, 0);
  ::close(file);
  ::unlink(path);
  ASSERT_GT(n, 0);
  std::string all(text, static_cast<size_t>(n));
  EXPECT_NE(all.find("3 lines of this log are lost"), std::string::npos) << all;
  EXPECT_NE(all.find("kept: kept\n"), std::string::npos) << all;
  EXPECT_EQ(all.find("gone"), std::string::npos) << all;
}

TEST(Fault, FiresAtTheAskedPassage) {
  ASSERT_TRUE(set_fault("test.point", "fail@3"));
  EXPECT_FALSE(RAY_FAULT_FAILS("test.point"));
  EXPECT_FALSE(RAY_FAULT_FAILS("test.other"));
  EXPECT_FALSE(RAY_FAULT_FAILS("test.point"));
  EXPECT_TRUE(RAY_FAULT_FAILS("test.point"));
  EXPECT_FALSE(RAY_FAULT_FAILS("test.point"));
  ASSERT_TRUE(set_fault("test.point", "fail@0"));
  EXPECT_TRUE(RAY_FAULT_FAILS("test.point"));
  EXPECT_TRUE(RAY_FAULT_FAILS("test.point"));
  ASSERT_TRUE(set_fault("test.point", ""));
  EXPECT_FALSE(RAY_FAULT_FAILS("test.point"));
  EXPECT_FALSE(g_faults_armed.load());
}

TEST(Fault, RefusesWhatItCannotParse) {
  for (const char* bad :
       {"explode", "fail@", "fail@x", "fail@-1", "fail@1x", "delay", "delay:", "delay:5",
        "delay:ms", "delay:-1ms", "delay:nanms", "delay:1e300s", "delay:5 ms", "@1"})
    EXPECT_FALSE(set_fault("test.bad", bad)) << bad;
  EXPECT_FALSE(set_fault("", "fail"));
  EXPECT_FALSE(g_faults_armed.load());
  for (const char* good : {"kill", "stop", "fail", "delay:5us", "delay:0.5ms", "delay:1s@2"})
    EXPECT_TRUE(set_fault("test.good", good)) << good;
  set_fault("test.good", "");
}

TEST(Fault, DelaysKillsAndReadsTheEnvironment) {
  set_fault("test.slow", "delay:20ms");
  int64_t from = steady_ns();
  RAY_FAULT("test.slow");
  EXPECT_GE(steady_ns() - from, 20 * 1000 * 1000);
  set_fault("test.slow", "");
  int child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::setenv("LIBRAY_FAULTS", "nonsense;test.a=fail;test.b=kill@2;=x", 1);
    load_faults_from_environment();
    if (!RAY_FAULT_FAILS("test.a")) ::_exit(1);
    RAY_FAULT("test.b");
    RAY_FAULT("test.b");
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

// LIBRAY_FAULT_ONCE: of all the processes that share the directory one acts, once per point.
TEST(Fault, OnceAmongProcesses) {
  char dir[] = "/tmp/libray-fault-once-XXXXXX";
  ASSERT_NE(::mkdtemp(dir), nullptr);
  int killed = 0;
  for (int i = 0; i < 3; ++i) {
    int child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::setenv("LIBRAY_FAULTS", "test.once=kill@0", 1);
      ::setenv("LIBRAY_FAULT_ONCE", dir, 1);
      load_faults_from_environment();
      RAY_FAULT("test.once");
      RAY_FAULT("test.once");
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    killed += WIFSIGNALED(status);
    if (i > 0) EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(killed, 1);
  std::string path = std::string(dir) + "/test.once";
  EXPECT_EQ(::unlink(path.c_str()), 0);  // it holds the pid of the one
  EXPECT_EQ(::rmdir(dir), 0);
}

}  // namespace
}  // namespace ray
