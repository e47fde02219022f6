// Several nodes as processes on this machine, started and ended by the tool as people do it. Ends them all, and with the
// test's process they end in any case.
#pragma once
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/proc.h"
#include "libray/cli/session_files.h"
#include "libray/session/session.h"
#include "tests/cli/session_builder.h"

namespace ray::test {

struct TestNode {
  std::string session;
  int pid = 0;
  int64_t index = -1;
};

// The limit only ends a test that has failed.
inline bool eventually(const std::function<bool()>& what) {
  const int64_t end = steady_ns() + 60'000'000'000;
  while (!what()) {
    if (steady_ns() > end) return false;
    ::usleep(20'000);
  }
  return true;
}

class Nodes : public ::testing::Test {
 protected:
  ~Nodes() override {
    for (const TestNode& n : all_) {
      ::kill(n.pid, SIGCONT);
      run({"stop", "-s", n.session, "--force"});
    }
  }
  cli::test::Output run(const std::vector<std::string>& args) const { return cli::test::run_tool(base_.path(), args); }
  TestNode start(std::vector<std::string> more) {
    std::vector<std::string> args = {"start", "--json", "--store-bytes", "33554432", "--with-pid", std::to_string(::getpid())};
    if (std::find(more.begin(), more.end(), "--num-cpus") == more.end()) args.insert(args.end(), {"--num-cpus", "1"});
    args.insert(args.end(), more.begin(), more.end());
    const cli::test::Output out = run(args);
    EXPECT_EQ(out.code, 0) << out.err;
    TestNode n;
    if (out.code != 0) return n;
    n.session = cli::test::json(out.out, "$.session");
    n.pid = std::stoi(cli::test::json(out.out, "$.pid"));
    n.index = std::stoll(cli::test::json(out.out, "$.index"));
    if (cli::test::json(out.out, "$.role") == "head") {
      address_ = cli::test::json(out.out, "$.head");
      token_file_ = cli::test::json(out.out, "$.token_file");
    }
    all_.push_back(n);
    return n;
  }
  TestNode head(std::vector<std::string> more = {}) {
    more.insert(more.begin(), "--head");
    return start(more);
  }
  TestNode join(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--address", address_, "--token-file", token_file_});
    return start(more);
  }
  // What `of` knows of the node with that index; empty = nothing.
  std::string column(const TestNode& of, int64_t index, const char* name) const {
    const cli::ClusterFile c = cli::read_cluster_file(of.session);
    for (size_t i = 0; i < c.nodes.rows.size(); ++i)
      if (c.nodes.at(i, "index").integer == index) return c.nodes.at(i, name).to_string();
    return "";
  }
  bool sees(const TestNode& of, const std::map<int64_t, std::string>& states) const {
    const cli::ClusterFile c = cli::read_cluster_file(of.session);
    std::map<int64_t, std::string> found;
    for (size_t i = 0; i < c.nodes.rows.size(); ++i)
      found[c.nodes.at(i, "index").integer] = c.nodes.at(i, "state").text;
    return found == states;
  }
  static std::string ended(const TestNode& n) { return cli::read_cluster_file(n.session).ended; }
  static bool is_gone(const TestNode& n) { return ::kill(n.pid, 0) != 0 || is_zombie(n.pid); }
  static std::string log_of(const TestNode& n) {
    auto text = session::read_file(n.session + "/logs/rayd.log");
    return text.ok() ? *text : "";
  }

  cli::test::TempDir base_;
  std::string address_, token_file_;
  std::vector<TestNode> all_;
};

}  // namespace ray::test
