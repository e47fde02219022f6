// Session directories: modes, ownership, liveness by lock, pruning.
#include "libray/session/session.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace ray::session {
namespace {

class SessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/libray-test-XXXXXX";
    ASSERT_NE(::mkdtemp(path), nullptr);
    base_ = path;
  }
  void TearDown() override { std::filesystem::remove_all(base_); }
  mode_t mode(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  }
  std::string base_;
};

TEST_F(SessionTest, CreatesPrivateDirectoryWithToken) {
  auto base = session_base(base_ + "/made");
  ASSERT_TRUE(base.ok()) << base.status().message();
  EXPECT_EQ(mode(*base), 0700u);
  auto s = create_session(*base);
  ASSERT_TRUE(s.ok()) << s.status().message();
  EXPECT_EQ(mode(s->dir), 0700u);
  EXPECT_EQ(mode(s->dir + "/token"), 0600u);
  EXPECT_EQ(s->token.size(), 32u);
  EXPECT_TRUE(std::filesystem::is_directory(s->dir + "/logs"));
  auto again = open_session(s->dir);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->token, s->token);
}

TEST_F(SessionTest, TwoSessionsDiffer) {
  auto a = create_session(base_), b = create_session(base_);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->dir, b->dir);
  EXPECT_NE(a->token, b->token);
}

TEST_F(SessionTest, RefusesLinkAndSharedBase) {
  std::filesystem::create_directory(base_ + "/real");
  std::filesystem::create_symlink(base_ + "/real", base_ + "/link");
  EXPECT_EQ(session_base(base_ + "/link").status().code(), RAY_INVALID_ARGUMENT);
  ::chmod((base_ + "/real").c_str(), 0777);
  EXPECT_EQ(session_base(base_ + "/real").status().code(), RAY_INVALID_ARGUMENT);
}

// Everybody may make files in /tmp: this user's sessions are in a folder of its own there.
TEST_F(SessionTest, StickySharedFolderHoldsAFolderOfThisUser) {
  ASSERT_EQ(::chmod(base_.c_str(), 01777), 0);
  auto base = session_base(base_);
  ASSERT_TRUE(base.ok()) << base.status().message();
  EXPECT_EQ(*base, base_ + "/libray-" + std::to_string(::geteuid()));
  EXPECT_EQ(*base, base_path(base_));
  EXPECT_EQ(mode(*base), 0700u);
}

TEST_F(SessionTest, RefusesABaseThatAnybodyCouldReplace) {
  std::filesystem::create_directories(base_ + "/open/inner");
  ASSERT_EQ(::chmod((base_ + "/open").c_str(), 0777), 0);
  EXPECT_EQ(session_base(base_ + "/open/base").status().code(), RAY_INVALID_ARGUMENT);
  EXPECT_EQ(session_base(base_ + "/open/inner/base").status().code(), RAY_INVALID_ARGUMENT);
  ASSERT_EQ(::chmod((base_ + "/open").c_str(), 01777), 0);
  EXPECT_TRUE(session_base(base_ + "/open/base").ok());
}

TEST_F(SessionTest, RefusesASessionThatOthersMayChange) {
  auto s = create_session(base_);
  ASSERT_TRUE(s.ok());
  const std::string token = s->dir + "/token", lock = s->dir + "/lock";
  ::chmod(s->dir.c_str(), 0770);
  EXPECT_EQ(open_session(s->dir).status().code(), RAY_INVALID_ARGUMENT);
  EXPECT_EQ(check_session(s->dir).code(), RAY_INVALID_ARGUMENT);
  EXPECT_TRUE(list_sessions(base_).empty());
  ::chmod(s->dir.c_str(), 0700);
  ::chmod(token.c_str(), 0640);  // somebody else knows it
  EXPECT_EQ(open_session(s->dir).status().code(), RAY_INVALID_ARGUMENT);
  ::chmod(token.c_str(), 0600);
  ::chmod(lock.c_str(), 0620);
  EXPECT_EQ(open_session(s->dir).status().code(), RAY_INVALID_ARGUMENT);
  ::chmod(lock.c_str(), 0600);
  EXPECT_TRUE(open_session(s->dir).ok());
}

TEST_F(SessionTest, RefusesLinksAndPipesInTheirPlace) {
  auto s = create_session(base_);
  ASSERT_TRUE(s.ok());
  const std::string token = s->dir + "/token", lock = s->dir + "/lock";
  std::filesystem::rename(token, base_ + "/elsewhere");
  std::filesystem::create_symlink(base_ + "/elsewhere", token);
  EXPECT_EQ(open_session(s->dir).status().code(), RAY_INVALID_ARGUMENT);
  std::filesystem::remove(token);
  ASSERT_EQ(::mkfifo(token.c_str(), 0600), 0);  // opening it would wait for a writer
  EXPECT_EQ(open_session(s->dir).status().code(), RAY_INVALID_ARGUMENT);
  std::filesystem::rename(base_ + "/elsewhere", token);
  EXPECT_TRUE(open_session(s->dir).ok());
  std::filesystem::create_symlink(s->dir, base_ + "/link");  // as good as what it leads to
  auto linked = open_session(base_ + "/link");
  ASSERT_TRUE(linked.ok()) << linked.status().message();
  EXPECT_EQ(linked->dir, s->dir);
}

TEST_F(SessionTest, AliveWhileAnyoneHoldsTheLock) {
  auto s = create_session(base_);
  ASSERT_TRUE(s.ok());
  EXPECT_TRUE(session_alive(s->dir));
  auto second = open_session(s->dir);
  ASSERT_TRUE(second.ok());
  s->lock.reset();
  EXPECT_TRUE(session_alive(s->dir));
  second->lock.reset();
  EXPECT_FALSE(session_alive(s->dir));
}

TEST_F(SessionTest, LockEndsWithTheProcess) {
  auto s = create_session(base_);
  ASSERT_TRUE(s.ok());
  std::string dir = s->dir;
  s->lock.reset();
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  pid_t child = ::fork();
  if (child == 0) {
    auto mine = open_session(dir);
    (void)!::write(ready[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char c;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  EXPECT_TRUE(session_alive(dir));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(session_alive(dir));
}

TEST_F(SessionTest, PruneKeepsLivingAndNewestDead) {
  std::vector<std::string> dirs;
  for (int i = 0; i < 6; ++i) {
    // Names sort by time; these stand for sessions of different seconds.
    std::string dir = base_ + "/session-20200101-00000" + std::to_string(i) + "-1-abcdef";
    std::filesystem::create_directory(dir);
    ASSERT_TRUE(write_file(dir + "/token", std::string(32, 'a')).ok());
    dirs.push_back(dir);
  }
  auto living = open_session(dirs[0]);
  ASSERT_TRUE(living.ok());
  SessionLimits two;
  two.count = 2;
  prune_sessions(base_, two);
  EXPECT_EQ(list_sessions(base_), (std::vector<std::string>{dirs[0], dirs[4], dirs[5]}));
}

TEST_F(SessionTest, DeadSessionsAreBoundedInBytesOldestFirst) {
  std::vector<std::string> dirs;
  auto fill = [](const std::string& file, size_t bytes) { std::ofstream(file) << std::string(bytes, 'x'); };
  for (int i = 0; i < 4; ++i) {
    dirs.push_back(base_ + "/session-2026010" + std::to_string(i) + "-000000-1-abcdef");
    for (const char* sub : {"", "/logs", "/spill"}) std::filesystem::create_directory(dirs.back() + sub);
    for (const char* file : {"/lock", "/token"}) fill(dirs.back() + file, 32);
    fill(dirs.back() + "/gcs-0.db", 1 << 20);
    fill(dirs.back() + "/spill/object", 1 << 20);
  }
  std::filesystem::create_directory(base_ + "/session-20260105-000000-1-abcdef");  // is being made
  auto alive = create_session(base_);
  ASSERT_TRUE(alive.ok()) << alive.status().message();
  fill(alive->dir + "/spill/object", 1 << 20);
  for (auto& dir : dirs) fill(dir + "/spill/object", 1 << 20);
  Pruned would = prune_sessions(base_, {10, 3 << 20}, true);
  EXPECT_EQ(would.sessions, 3u);  // spilled objects count as long as they are there
  EXPECT_EQ(list_sessions(base_).size(), 6u);
  Pruned done = prune_sessions(base_, {10, (5 << 20) / 2});
  EXPECT_EQ(done.sessions, 2u);
  EXPECT_EQ(done.kept, 2u);
  EXPECT_LE(done.kept_bytes, 5u << 19);
  EXPECT_EQ(list_sessions(base_), (std::vector<std::string>{dirs[2], dirs[3], base_ + "/session-20260105-000000-1-abcdef",
                                                            alive->dir}));
  EXPECT_TRUE(std::filesystem::exists(alive->dir + "/spill/object"));
  EXPECT_FALSE(std::filesystem::exists(dirs[3] + "/spill/object"));
  ::setenv("LIBRAY_SESSION_BYTES", "0", 1);
  EXPECT_EQ(SessionLimits::from_environment().bytes, 0u);
  ::unsetenv("LIBRAY_SESSION_BYTES");
}

TEST_F(SessionTest, RemovesOnlySockets) {
  auto s = create_session(base_);
  ASSERT_TRUE(s.ok());
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::snprintf(a.sun_path, sizeof a.sun_path, "%s/node.sock", s->dir.c_str());
  int fd = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  ::close(fd);
  remove_sockets(s->dir);
  EXPECT_FALSE(std::filesystem::exists(a.sun_path));
  EXPECT_TRUE(std::filesystem::exists(s->dir + "/token"));
}

TEST_F(SessionTest, FindsRaydByEnvironment) {
  ::setenv("LIBRAY_RAYD", "/bin/sh", 1);
  auto found = find_rayd();
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*found, "/bin/sh");
  ::setenv("LIBRAY_RAYD", "/nonexistent/rayd", 1);
  EXPECT_EQ(find_rayd().status().code(), RAY_UNAVAILABLE);
  ::unsetenv("LIBRAY_RAYD");
}

}  // namespace
}  // namespace ray::session
