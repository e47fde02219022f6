// rayd: one binary, several roles. `rayd node` is started by ray_init or by `libray start`; `rayd gcs` by
// rayd node. Options are for programs; people use the `libray` tool.
#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "gcs/shard.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/node/node.h"

namespace {

bool from_hex(const std::string& hex, std::string* out) {
  auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  if (hex.size() % 2) return false;
  for (size_t i = 0; i < hex.size(); i += 2) {
    int high = digit(hex[i]), low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return false;
    out->push_back(static_cast<char>(high << 4 | low));
  }
  return true;
}

#ifndef SYS_close_range
#define SYS_close_range 436  // everywhere
#endif

// Descriptors that the starting program left open are not this daemon's business.
void close_inherited(int keep) {
  auto close_all = [](unsigned from, unsigned to) {
    if (from > to || ::syscall(SYS_close_range, from, to, 0) == 0) return;
    for (unsigned fd = from; fd <= std::min(to, 4095u); ++fd)
      ::close(static_cast<int>(fd));  // before Linux 5.9
  };
  if (keep > 3) close_all(3, static_cast<unsigned>(keep) - 1);
  close_all(keep >= 3 ? static_cast<unsigned>(keep) + 1 : 3, ~0u);
}

void open_log_file(const std::string& path) {
  if (path.empty()) return;
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  ::dup2(fd, 2);
  ::dup2(fd, 1);
  ::close(fd);
}

// Batches come and go on several threads: few arenas, so that idle memory can be given back.
void bound_heap() { ::mallopt(M_ARENA_MAX, 2); }

int run_node(ray::node::NodeOptions options, const std::string& resources, const std::string& log) {
  close_inherited(options.ready_fd);
  if (options.ready_fd >= 0) ::fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);
  int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(null, 0);
  open_log_file(log);
  ray::set_log_identity("node");
  ray::set_log_handler(nullptr, ray::kLogInfo, nullptr);
  if (!from_hex(resources, &options.resources_msgpack)) {
    if (options.ready_fd >= 0) (void)!::write(options.ready_fd, "error: resources are not hex\n", 29);
    return 2;
  }
  char path[PATH_MAX];
  ssize_t n = ::readlink("/proc/self/exe", path, sizeof path - 1);
  options.program = n > 0 ? std::string(path, static_cast<size_t>(n)) : "rayd";
  if (options.num_cpus < 0) options.num_cpus = static_cast<double>(::sysconf(_SC_NPROCESSORS_ONLN));
  ray::node::Node node(std::move(options));
  return node.run();
}

void add_cluster_options(CLI::App* n, ray::node::ClusterOptions* o, std::string* labels) {
  n->add_option("--cluster", o->role, "head or node; the token lies in the session")->check(CLI::IsMember({"head", "node"}));
  n->add_option("--cluster-listen", o->listen, "of the head: where it listens, tcp://HOST:PORT or tls+tcp://HOST:PORT");
  n->add_option("--cluster-head", o->head, "of a node: where the head listens");
  n->add_option("--cluster-address", o->address, "this node's address, for people");
  n->add_option("--cluster-labels", *labels, "a MessagePack map of text in hex");
  n->add_option("--cluster-certificate", o->tls_certificate, "PEM file: certificate and key");
  n->add_option("--cluster-ca", o->tls_ca, "PEM file: whose certificates are trusted");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("libray's daemon");
  app.require_subcommand(1);
  ray::node::NodeOptions node;
  node.num_cpus = -1;  // not given
  std::string resources, log;
  CLI::App* n = app.add_subcommand("node", "one node: scheduler, worker pool, object directory");
  n->add_option("--session", node.session_dir, "session directory")->required();
  n->add_option("--parent-pid", node.parent_pid, "end when this process ends; 0 = run until told");
  n->add_option("--ready-fd", node.ready_fd, "gets one line when the node takes work");
  n->add_option("--num-cpus", node.num_cpus, "default: as many as there are");
  n->add_option("--resources-msgpack", resources, "further resources: a MessagePack map in hex");
  n->add_option("--store-bytes", node.store_bytes, "capacity of the object store");
  n->add_option("--spill-bytes", node.spill_bytes, "limit of what is spilled; 0 = the disk");
  n->add_option("--gcs-shards", node.gcs_shards, "shards of the control store")->check(CLI::Range(1, 64));
  n->add_option("--max-workers", node.max_workers, "limit of worker processes")->check(CLI::Range(1, 4000));
  n->add_option("--log", log, "file for the log");
  std::string labels;
  add_cluster_options(n, &node.cluster, &labels);
  ray::gcs::ShardOptions shard;
  CLI::App* g = app.add_subcommand("gcs", "one shard of the control store");
  g->add_option("--session", shard.dir, "session directory")->required();
  g->add_option("--index", shard.index, "number of the shard")->required();
  g->add_option("--url", shard.url, "where it listens")->required();
  g->add_option("--ready-fd", shard.ready_fd, "gets one byte when it answers requests");
  g->add_option("--parent-pid", shard.parent_pid, "end when this process ends");
  g->add_option("--driver-pid", shard.driver_pid, "whose end the parent must not miss because it is stopped");
  CLI11_PARSE(app, argc, argv);
  ray::load_faults_from_environment();
  bound_heap();
  if (!from_hex(labels, &node.cluster.labels_msgpack)) return 2;
  if (n->parsed()) return run_node(std::move(node), resources, log);
  if (shard.ready_fd >= 0) ::fcntl(shard.ready_fd, F_SETFD, FD_CLOEXEC);
  ::umask(077);  // SQLite gives its files what the umask leaves
  auto session = ray::session::open_session(shard.dir);
  if (!session.ok()) {
    std::fprintf(stderr, "rayd gcs: %s\n", session.status().message().c_str());
    return 1;
  }
  session->lock.reset();  // a shard alone makes no session living
  shard.token = session->token;
  ray::set_log_identity(("gcs-" + std::to_string(shard.index)).c_str());
  ray::set_log_handler(nullptr, ray::kLogInfo, nullptr);
  int rc = ray::gcs::gcs_main(shard);
  // The node was killed: whoever goes last leaves no socket behind.
  if (shard.parent_pid > 0 && ::getppid() != shard.parent_pid) ray::session::remove_sockets(shard.dir);
  return rc;
}
