// Log files of workers: names, what is removed, and that a file that grows for ever stays small on
// disk.
#include "libray/node/worker_logs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "libray/base/clock.h"

namespace ray::node {
namespace {

class WorkerLogsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/libray-test-XXXXXX";
    ASSERT_NE(::mkdtemp(path), nullptr);
    folder_ = path;
    ::setenv("LIBRAY_LOG_MAX_BYTES", "1000000", 1);
    logs_.configure(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::set<std::string> names() const {
    std::set<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator(folder_))
      out.insert(e.path().filename());
    return out;
  }
  std::string folder_;
  WorkerLogs logs_;
  Fd out_, err_;
  std::string why_;
};

JobId job() {
  JobId id;
  id.b[0] = 0xab;
  return id;
}

TEST_F(WorkerLogsTest, NamesGetThePidAndEmptyFilesGo) {
  ASSERT_TRUE(logs_.open(7, job(), &out_, &err_, &why_).ok());
  EXPECT_EQ(names(), (std::set<std::string>{"worker-7-ab000000.out", "worker-7-ab000000.err"}));
  logs_.started(7, 1234);
  EXPECT_EQ(names(),
            (std::set<std::string>{"worker-7-ab000000-1234.out", "worker-7-ab000000-1234.err"}));
  ASSERT_EQ(::write(err_.get(), "boom\n", 5), 5);  // the descriptor is still the file
  EXPECT_EQ(logs_.ended(7), "logs/worker-7-ab000000-1234.err");
  EXPECT_EQ(names(), (std::set<std::string>{"worker-7-ab000000-1234.err"}));
  EXPECT_EQ(logs_.ended(7), "");
  EXPECT_EQ(logs_.next_deadline(), 0);
}

TEST_F(WorkerLogsTest, OldFilesGo) {
  for (uint64_t i = 1; i <= 600; ++i) {
    ASSERT_TRUE(logs_.open(i, job(), &out_, &err_, &why_).ok());
    ASSERT_EQ(::write(out_.get(), "x", 1), 1);
    logs_.ended(i);
  }
  EXPECT_EQ(names().size(), 500u);
  EXPECT_TRUE(names().count("worker-600-ab000000.out"));
}

TEST_F(WorkerLogsTest, GrowingFileLosesItsBeginning) {
  ASSERT_TRUE(logs_.open(1, job(), &out_, &err_, &why_).ok());
  std::string block(100'000, 'a');
  for (int i = 0; i < 50; ++i) ASSERT_EQ(::write(out_.get(), block.data(), block.size()), 100'000);
  ASSERT_EQ(::write(out_.get(), "the end\n", 8), 8);
  ASSERT_NE(logs_.next_deadline(), 0);
  logs_.trim(steady_ns());  // not yet
  struct stat st;
  ASSERT_EQ(::fstat(out_.get(), &st), 0);
  EXPECT_GE(st.st_blocks * 512, 5'000'000);
  logs_.trim(logs_.next_deadline());
  ASSERT_EQ(::fstat(out_.get(), &st), 0);
  EXPECT_EQ(st.st_size, 5'000'008);
  EXPECT_LE(st.st_blocks * 512, 600'000);
  Fd fd(::open((folder_ + "/worker-1-ab000000.out").c_str(), O_RDONLY));
  char tail[8];
  ASSERT_EQ(::pread(fd.get(), tail, 8, 5'000'000), 8);
  EXPECT_EQ(std::string(tail, 8), "the end\n");
}

// A folder that takes no file: the worker is started nevertheless, and somebody is told why it has no log.
TEST_F(WorkerLogsTest, WithoutRoomForAFileOutputGoesNowhere) {
  std::filesystem::remove_all(folder_);
  ASSERT_TRUE(logs_.open(1, job(), &out_, &err_, &why_).ok());
  EXPECT_NE(why_.find("worker-1-ab000000"), std::string::npos) << why_;
  for (const Fd* fd : {&out_, &err_}) EXPECT_EQ(::write(fd->get(), "x", 1), 1);
  logs_.started(1, 1234);
  EXPECT_EQ(logs_.ended(1), "");
}

TEST_F(WorkerLogsTest, LastLine) {
  auto last = [this](const std::string& text) {
    std::string path = folder_ + "/log";
    Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600));
    EXPECT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    return last_line(path);
  };
  EXPECT_EQ(last(""), "");
  EXPECT_EQ(last("\n \n\n"), "");
  EXPECT_EQ(last("only"), "only");
  EXPECT_EQ(last("first\nsecond \n\n"), "second");
  EXPECT_EQ(last("a\n\x1b[31mred\t\xc3\x9f\n"), "?[31mred?\xc3\x9f");
  EXPECT_EQ(last("a\n\xff\xc3\x9f\n"), "???");
  EXPECT_EQ(last("a\nends in \xc3"), "ends in ?");
  EXPECT_EQ(last("a\n" + std::string(5000, 'x')), std::string(400, 'x'));
  EXPECT_EQ(last_line(folder_ + "/none"), "");
  EXPECT_EQ(last_line(folder_), "");
}

}  // namespace
}  // namespace ray::node
