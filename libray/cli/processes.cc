// The living processes of a session, from /proc; see session_files.h. A process belongs to a
// session when it has the session's lock file open (session/session.h) or carries its path in
// LIBRAY_SESSION.
#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/proc.h"
#include "libray/cli/session_files.h"
#include "libray/wire/protocol.h"

namespace ray::cli {
namespace {

std::string proc_file(int pid, const char* name) {
  return read_proc("/proc/" + std::to_string(pid) + "/" + name);
}

// Value of a variable in /proc/PID/environ; empty = not set.
std::string environment(const std::string& environ_file, const std::string& name) {
  std::string all = '\0' + environ_file, key = '\0' + name + "=";
  size_t at = all.find(key);
  if (at == all.npos) return "";
  return all.c_str() + at + key.size();
}

bool has_open(int pid, const std::string& file) {
  std::string dir = "/proc/" + std::to_string(pid) + "/fd";
  DIR* d = ::opendir(dir.c_str());
  if (!d) return false;
  bool found = false;
  char target[PATH_MAX];
  while (dirent* e = ::readdir(d)) {
    ssize_t n = ::readlink((dir + "/" + e->d_name).c_str(), target, sizeof target);
    if (n > 0 && std::string_view(target, static_cast<size_t>(n)) == file) {
      found = true;
      break;
    }
  }
  ::closedir(d);
  return found;
}

int64_t boot_time_ns() {
  double uptime = std::strtod(read_proc("/proc/uptime").c_str(), nullptr);
  return wall_ns() - static_cast<int64_t>(uptime * 1e9);
}

// Fields of /proc/PID/stat count from 1; the second is the name in parentheses, which may hold
// anything.
bool read_stat(int pid, ProcessInfo* out) {
  std::string stat = proc_file(pid, "stat");
  size_t close = stat.rfind(')');
  if (close == stat.npos || close + 2 >= stat.size()) return false;
  std::vector<std::string> fields{"", ""};
  const char* at = stat.c_str() + close + 2;
  while (*at) {
    size_t n = std::strcspn(at, " \n");
    fields.emplace_back(at, n);
    at += n;
    while (*at == ' ' || *at == '\n') ++at;
  }
  if (fields.size() < 24) return false;
  auto number = [&](size_t field) { return std::strtoll(fields[field - 1].c_str(), nullptr, 10); };
  double tick = static_cast<double>(::sysconf(_SC_CLK_TCK));
  out->pid = pid;
  out->state = fields[2].empty() ? '?' : fields[2][0];
  out->parent = static_cast<int>(number(4));
  out->cpu_seconds = static_cast<double>(number(14) + number(15)) / tick;
  out->started_ns =
      boot_time_ns() + static_cast<int64_t>(static_cast<double>(number(22)) / tick * 1e9);
  out->rss_bytes =
      static_cast<uint64_t>(number(24)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return true;
}

std::string command_line(int pid) {
  std::string s = proc_file(pid, "cmdline");
  while (!s.empty() && s.back() == '\0') s.pop_back();
  std::replace(s.begin(), s.end(), '\0', ' ');
  return s.empty() ? "[" + printable(proc_file(pid, "comm")) + "]" : s;
}

std::string role_of(const ProcessInfo& p, const NodeFile& node, const std::string& environ_file) {
  if (p.pid == node.pid) return "node";
  if (std::find(node.gcs_pids.begin(), node.gcs_pids.end(), p.pid) != node.gcs_pids.end())
    return "gcs";
  if (p.parent == node.pid && p.command.find("rayd gcs") != p.command.npos) return "gcs";
  if (p.parent == node.pid && p.command.find("libray-relay") != p.command.npos) return "relay";
  if (!environment(environ_file, wire::kEnvWorker).empty()) return "worker";
  // Workers that a zygote forked have its environment as the kernel shows it: their parent tells.
  if (!environment(environ_file, wire::kEnvSession).empty())
    return p.parent == node.pid ? "zygote" : "worker";
  return "driver";
}

}  // namespace

std::vector<ProcessInfo> session_processes(const std::string& session, const NodeFile& node) {
  std::vector<ProcessInfo> out;
  DIR* d = ::opendir("/proc");
  if (!d) return out;
  while (dirent* e = ::readdir(d)) {
    int pid = static_cast<int>(std::strtol(e->d_name, nullptr, 10));
    if (pid <= 0 || pid == ::getpid()) continue;
    std::string env = proc_file(pid, "environ");
    bool ours = environment(env, wire::kEnvSession) == session || has_open(pid, session + "/lock");
    // Shards of the control store have neither: they are known by their command.
    if (!ours && proc_file(pid, "comm") == "rayd\n")
      ours = command_line(pid).find(" --session " + session + " ") != std::string::npos;
    ProcessInfo p;
    if (!ours || !read_stat(pid, &p) || p.state == 'Z') continue;
    p.command = command_line(pid);
    p.role = role_of(p, node, env);
    out.push_back(std::move(p));
  }
  ::closedir(d);
  auto rank = [](const ProcessInfo& p) {
    static const char* const order[] = {"node", "gcs", "relay", "driver", "zygote", "worker"};
    auto it = std::find(std::begin(order), std::end(order), p.role);
    return std::pair(it - std::begin(order), p.pid);
  };
  std::sort(out.begin(), out.end(),
            [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return out;
}

bool is_node_process(const NodeFile& node, const std::string& session) {
  ProcessInfo p;
  if (!node.found || node.pid <= 0 || !read_stat(node.pid, &p) || p.state == 'Z') return false;
  if (has_open(node.pid, session + "/lock")) return true;
  return command_line(node.pid).find(session) != std::string::npos;
}

NodeState node_state(const std::string& session, const NodeFile& node) {
  ProcessInfo p;
  if (!is_node_process(node, session) || !read_stat(node.pid, &p)) return NodeState::kDead;
  return p.state == 'T' || p.state == 't' ? NodeState::kStopped : NodeState::kAlive;
}

}  // namespace ray::cli
