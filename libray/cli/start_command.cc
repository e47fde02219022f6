// start, nodes: a node that outlives the command that starts it, and the cluster as a node's files show it.
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "libray/base/clock.h"
#include "libray/base/proc.h"
#include "libray/base/shm.h"
#include "libray/base/trust.h"
#include "libray/cli/commands.h"
#include "libray/cli/session_files.h"
#include "libray/node/session.h"
#include "libray/wire/msgpack.h"

extern char** environ;

namespace ray::cli {
namespace {

constexpr char kTokenFile[] = "cluster.token";
constexpr size_t kMinToken = 16, kMaxTokenFile = 16 << 10;
constexpr int kReadyFd = 3;
constexpr int64_t kStartNs = 60'000'000'000;

std::string to_hex(std::string_view bytes) {
  std::string out;
  for (unsigned char c : bytes) out += strprintf("%02x", c);
  return out;
}

// {"a": 1} or a=1,b=2 as names and texts.
Result<std::map<std::string, std::string>> read_pairs(const std::string& text, const char* what) {
  std::map<std::string, std::string> out;
  if (!text.empty() && text[0] == '{') {
    RAY_TRY(read_json_pairs(text, &out));
    return out;
  }
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string pair = text.substr(at, end - at);
    const size_t eq = pair.find('=');
    if (eq == 0 || eq == std::string::npos)
      return error(RAY_INVALID_ARGUMENT, "%s are written NAME=VALUE,NAME=VALUE or as JSON, not '%s'", what, text.c_str());
    out[pair.substr(0, eq)] = pair.substr(eq + 1);
    at = end + 1;
  }
  return out;
}

Result<wire::Resources> read_amounts(const StartOptions& o) {
  wire::Resources out;
  auto pairs = read_pairs(o.resources, "resources");
  if (!pairs.ok()) return pairs.status();
  for (const auto& [name, value] : *pairs) {
    char* end = nullptr;
    const double amount = std::strtod(value.c_str(), &end);
    if (value.empty() || *end || !(amount >= 0 && amount <= 1e13))
      return error(RAY_INVALID_ARGUMENT, "the amount of resource '%s' is no number that can be: '%s'", name.c_str(),
                   value.c_str());
    if (name == "CPU" || name == "GPU")
      return error(RAY_INVALID_ARGUMENT, "give --num-cpus and --num-gpus instead of %s in --resources", name.c_str());
    out[name] = amount;
  }
  if (o.gpus > 0) out["GPU"] = o.gpus;
  return out;
}

Result<std::string> checked(std::string token, const std::string& from) {
  while (!token.empty() && (token.back() == '\n' || token.back() == ' ')) token.pop_back();
  if (token.size() >= kMinToken && token.size() <= 4096) return token;
  return error(RAY_INVALID_ARGUMENT, "the token in %s has %zu characters: 16 at least, 4096 at most", from.c_str(), token.size());
}

// Of the file that was named, else LIBRAY_TOKEN, else, of a head, a new one. Empty: a head is to make the named file.
Result<std::string> find_token(const StartOptions& o) {
  if (!o.token_file.empty()) {
    Fd fd(::open(o.token_file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.valid() && errno == ENOENT && o.head) return std::string();
    if (!fd.valid()) return errno_error(RAY_INVALID_ARGUMENT, "cannot read the token in '%s'", o.token_file.c_str());
    RAY_TRY(check_own(fd.get(), S_IFREG, kOthersAny, o.token_file));
    auto text = node::read_open_file(fd.get(), o.token_file, kMaxTokenFile);
    if (!text.ok()) return text.status();
    return checked(*text, "'" + o.token_file + "'");
  }
  const char* given = std::getenv(node::kTokenVariable);
  if (given && *given) return checked(given, "LIBRAY_TOKEN");
  if (o.head) return std::string();
  return error(RAY_INVALID_ARGUMENT, "who joins a cluster needs its token: --token-file FILE or LIBRAY_TOKEN; `libray start "
               "--head` has printed where it is");
}

Result<std::string> new_token() {
  uint8_t bytes[24];
  if (::getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return errno_error(RAY_UNAVAILABLE, "no random numbers");
  return to_hex({reinterpret_cast<const char*>(bytes), sizeof bytes});
}

bool split_address(const std::string& address, std::string* host, std::string* port) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) return false;
  *host = address.substr(0, colon);
  *port = address.substr(colon + 1);
  if (host->front() == '[' && host->back() == ']') *host = host->substr(1, host->size() - 2);
  return port->find_first_not_of("0123456789") == std::string::npos && std::strtoul(port->c_str(), nullptr, 10) <= 65535;
}

// A look whether anybody listens there, and by which address of this machine he is reached. The daemon would try for
// longer, which is right later, but whoever types the command wants to know at once.
Status look_for_head(const std::string& address, std::string* own) {
  std::string host, port;
  if (!split_address(address, &host, &port))
    return error(RAY_INVALID_ARGUMENT, "an address is HOST:PORT, not '%s'", address.c_str());
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (int rc = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); rc != 0)
    return error(RAY_UNAVAILABLE, "no host '%s': %s", host.c_str(), ::gai_strerror(rc));
  Status last = error(RAY_UNAVAILABLE, "no address of '%s' can be used", host.c_str());
  for (addrinfo* a = found; a; a = a->ai_next) {
    Fd fd(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) continue;
    int failed = ::connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    pollfd p{fd.get(), POLLOUT, 0};
    socklen_t size = sizeof failed;
    if (failed == EINPROGRESS) failed = ::poll(&p, 1, 5000) == 1 ? 0 : ETIMEDOUT;
    if (failed == 0) ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &failed, &size);
    errno = failed;
    last = failed == 0 ? Status() : errno_error(RAY_UNAVAILABLE, "no head of a cluster can be reached at %s", address.c_str());
    if (failed != 0) continue;
    sockaddr_storage local{};
    socklen_t n = sizeof local;
    char text[NI_MAXHOST];
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&local), &n) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&local), n, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      *own = text;
    break;
  }
  ::freeaddrinfo(found);
  return last;
}

std::string url(const StartOptions& o, const std::string& address) {
  return (o.tls_certificate.empty() ? "tcp://" : "tls+tcp://") + address;
}

std::string bracketed(const std::string& host) { return host.find(':') == std::string::npos ? host : "[" + host + "]"; }

bool is_loopback(const std::string& host) { return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0; }

// Where everybody is listened to, the name of the machine is what others need.
std::string public_name(const std::string& host) {
  char name[HOST_NAME_MAX + 1] = {};
  if ((host == "0.0.0.0" || host == "::" || host == "*") && ::gethostname(name, sizeof name - 1) == 0) return name;
  return bracketed(host);
}

Result<std::vector<std::string>> arguments(const StartOptions& o, const std::string& dir, const std::string& own) {
  auto rayd = node::find_rayd();
  if (!rayd.ok()) return rayd.status();
  auto resources = read_amounts(o);
  if (!resources.ok()) return resources.status();
  auto labels = read_pairs(o.labels, "labels");
  if (!labels.ok()) return labels.status();
  const uint64_t ram = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t store = o.store_bytes ? o.store_bytes : ram / 10 * 3;
  const std::string address = o.head ? public_name(o.host) : own;
  // What Ray's programs expect of every node.
  resources->emplace("memory", static_cast<double>(ram - std::min(ram, store)));
  resources->emplace("object_store_memory", static_cast<double>(store));
  resources->emplace("node:" + (address.empty() ? "127.0.0.1" : address), 1);
  if (o.address.empty()) resources->emplace("node:__internal_head__", 1);
  wire::Packer packed;
  packed.map(static_cast<uint32_t>(labels->size()));
  for (const auto& [name, value] : *labels) packed.str(name).str(value);
  std::vector<std::string> out = {
      *rayd, "node", "--session", dir, "--parent-pid", std::to_string(o.with_pid), "--ready-fd", std::to_string(kReadyFd),
      "--resources-msgpack", to_hex(wire::pack_resources(*resources)),
      "--store-bytes", std::to_string(store), "--spill-bytes", std::to_string(o.spill_bytes), "--gcs-shards", "2",
      "--log", dir + "/logs/rayd.log"};
  if (o.cpus >= 0) out.insert(out.end(), {"--num-cpus", strprintf("%.4f", o.cpus)});
  if (!o.head && o.address.empty()) return out;
  out.insert(out.end(), {"--cluster", o.head ? "head" : "node", "--cluster-address", address, "--cluster-labels",
                         to_hex(packed.bytes())});
  if (o.head) out.insert(out.end(), {"--cluster-listen", url(o, bracketed(o.host) + ":" + std::to_string(o.port))});
  else out.insert(out.end(), {"--cluster-head", url(o, o.address)});
  if (!o.tls_certificate.empty())
    out.insert(out.end(), {"--cluster-certificate", std::filesystem::absolute(o.tls_certificate).string(), "--cluster-ca",
                           std::filesystem::absolute(o.tls_ca).string()});
  return out;
}

// In a session of its own, so that the terminal's end is not the node's.
Status spawn_node(const std::vector<std::string>& args, const std::string& log, int ready_fd, int* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_adddup2(&actions, ready_fd, kReadyFd);
  posix_spawnattr_t attr;
  posix_spawnattr_init(&attr);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setsigmask(&attr, &none);
  std::vector<char*> argv;
  for (const auto& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  errno = posix_spawn(pid, argv[0], &actions, &attr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  return errno == 0 ? Status() : errno_error(RAY_UNAVAILABLE, "cannot start the node daemon %s", argv[0]);
}

// "ready", or "error: ...".
Status await_ready(int fd, int pidfd, const std::string& log) {
  std::string line;
  const int64_t deadline = steady_ns() + kStartNs;
  while (line.find('\n') == std::string::npos) {
    pollfd p{fd, POLLIN, 0};
    const int64_t ms = (deadline - steady_ns()) / 1'000'000;
    const int n = ms > 0 ? ::poll(&p, 1, static_cast<int>(ms)) : 0;
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      (void)pidfd_signal(pidfd, SIGKILL);
      return error(RAY_UNAVAILABLE, "the node did not start within %d s; see %s", static_cast<int>(kStartNs / 1'000'000'000),
                   log.c_str());
    }
    char buffer[512];
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    line.append(buffer, static_cast<size_t>(got));
  }
  while (!line.empty() && line.back() == '\n') line.pop_back();
  if (line == "ready") return Status();
  if (line.rfind("error: ", 0) == 0) return error(RAY_UNAVAILABLE, "%s", line.substr(7).c_str());
  return error(RAY_UNAVAILABLE, "the node ended while starting; see %s", log.c_str());
}

void print_started(const Common& common, const StartOptions& o, const std::string& session, const std::string& token_file,
                   int pid) {
  const ClusterFile c = read_cluster_file(session);
  if (common.json) {
    std::printf("{\"session\": %s, \"pid\": %d, \"role\": %s, \"head\": %s, \"index\": %lld, \"epoch\": %lld, "
                "\"token_file\": %s}\n", wire::json_quote(session).c_str(), pid,
                wire::json_quote(c.found ? c.role : "alone").c_str(), wire::json_quote(c.head).c_str(),
                static_cast<long long>(c.index), static_cast<long long>(c.epoch), wire::json_quote(token_file).c_str());
    std::fflush(stdout);
    return;
  }
  std::printf("session  %s (pid %d)\n", session.c_str(), pid);
  if (o.head) {
    std::string tls = o.tls_certificate.empty() ? "" : " --tls-certificate FILE --tls-ca FILE";
    std::printf("head     %s\n\nTo join from this machine:\n  libray start --address %s --token-file %s%s\n"
                "From another one: copy that file there, or set LIBRAY_TOKEN to what is in it.\n", c.head.c_str(),
                c.head.c_str(), token_file.c_str(), tls.c_str());
  } else if (c.found) {
    std::printf("joined   %s as node %lld\n", c.head.c_str(), static_cast<long long>(c.index));
  }
  std::printf("\nPrograms use this node with LIBRAY_ADDRESS=%s\nIt ends with: libray stop -s %s\n", session.c_str(),
              session.c_str());
  std::fflush(stdout);
}

// Until the node ends, or a signal says that it is to.
Status wait_for(int pidfd, int pid, const std::string& session, const sigset_t& signals) {
  Fd told(::signalfd(-1, &signals, SFD_CLOEXEC));
  bool asked = false;
  for (;;) {
    pollfd p[2] = {{pidfd, POLLIN, 0}, {told.get(), POLLIN, 0}};
    if (::poll(p, 2, -1) < 0 && errno != EINTR) break;
    if (p[1].revents) {
      signalfd_siginfo info;
      (void)!::read(told.get(), &info, sizeof info);
      (void)pidfd_signal(pidfd, asked ? SIGKILL : SIGTERM);
      asked = true;
    }
    if (p[0].revents) break;
  }
  ::waitpid(pid, nullptr, 0);
  if (asked) return Status();
  const ClusterFile c = read_cluster_file(session);
  if (!c.ended.empty()) return error(RAY_NODE_DIED, "%s", c.ended.c_str());
  return error(RAY_NODE_DIED, "the node has ended; see %s/logs/rayd.log", session.c_str());
}

Status write_token(const StartOptions& o, std::string token, const std::string& session, std::string* file) {
  *file = session + "/" + kTokenFile;
  if (token.empty()) {
    auto made = new_token();
    if (!made.ok()) return made.status();
    token = *made;
    if (!o.token_file.empty()) RAY_TRY(node::create_secret_file(o.token_file, token + "\n"));
  }
  RAY_TRY(node::write_file(*file, token + "\n"));
  std::error_code ec;
  if (!o.token_file.empty()) *file = std::filesystem::absolute(o.token_file, ec).string();
  return Status();
}

}  // namespace

Status start_node(const Common& common, const StartOptions& given) {
  StartOptions o = given;
  const bool in_cluster = o.head || !o.address.empty();
  if (!in_cluster && (o.port || !o.host.empty() || !o.token_file.empty() || !o.tls_certificate.empty()))
    return error(RAY_INVALID_ARGUMENT, "a node that is alone listens nowhere: give --head, or --address to join a cluster");
  if (o.tls_certificate.empty() != o.tls_ca.empty())
    return error(RAY_INVALID_ARGUMENT, "TLS needs both --tls-certificate and --tls-ca");
  if (o.head && o.host.empty()) o.host = "127.0.0.1";
  if (o.head && o.tls_certificate.empty() && !is_loopback(o.host))
    std::fprintf(stderr, "warning: without TLS whoever can change what travels on the network of %s can speak as any node "
                 "of this cluster: give --tls-certificate and --tls-ca unless you trust that network\n", o.host.c_str());
  std::string token, own, token_file;
  if (in_cluster) {
    auto found = find_token(o);
    if (!found.ok()) return found.status();
    token = *found;
  }
  ::unsetenv(node::kTokenVariable);  // it is in a file by now, and no business of what the daemon starts
  if (!o.address.empty()) RAY_TRY(look_for_head(o.address, &own));
  if (!o.address.empty() && !o.host.empty()) own = o.host;
  auto base = node::session_base(o.session_dir);
  if (!base.ok()) return base.status();
  auto session = node::create_session(*base);
  if (!session.ok()) return session.status();
  auto args = arguments(o, session->dir, own);
  Status prepared = args.ok() ? Status() : args.status();
  if (prepared.ok() && in_cluster) prepared = write_token(o, token, session->dir, &token_file);
  if (!prepared.ok()) {
    std::error_code ec;
    std::filesystem::remove_all(session->dir, ec);
    return prepared;
  }
  sigset_t signals, before;
  sigemptyset(&signals);
  for (int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, s);
  if (o.block) ::sigprocmask(SIG_BLOCK, &signals, &before);
  int pipe_fds[2], pid = 0;
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return errno_error(RAY_OUT_OF_MEMORY, "cannot make a pipe");
  // Above what the daemon gets as its own number, so that it is inherited there and nowhere else.
  Fd read_end = out_of_the_way(Fd(pipe_fds[0])), write_end = out_of_the_way(Fd(pipe_fds[1]));
  const std::string log = session->dir + "/logs/rayd.log";
  RAY_TRY(spawn_node(*args, log, write_end.get(), &pid));
  write_end.reset();
  Fd pidfd(pidfd_open(pid));
  const Status ready = await_ready(read_end.get(), pidfd.get(), log);
  if (!ready.ok()) {
    ::waitpid(pid, nullptr, 0);
    std::error_code ec;  // its log says more only where the daemon has not said why itself
    if (ready.message().find(log) == std::string::npos) std::filesystem::remove_all(session->dir, ec);
    return ready;
  }
  print_started(common, o, session->dir, token_file, pid);
  return o.block ? wait_for(pidfd.get(), pid, session->dir, signals) : Status();
}

Status show_nodes(const Common& common) {
  auto session = find_living_session(common.session, true);
  if (!session.ok()) return session.status();
  const ClusterFile c = read_cluster_file(*session);
  if (!c.found)
    return error(RAY_NOT_FOUND, "the node of %s is in no cluster: `libray start --head` starts one, `libray status` shows "
                 "this node", session->c_str());
  if (common.json) {
    print_json(stdout, c.nodes, {"resources", "labels"});
    return Status();
  }
  const int64_t now = wall_ns();
  Table t;
  t.column("NODE", Table::kRight);
  t.column("STATE");
  t.column("ADDRESS");
  t.column("HOST");
  t.column("SINCE");
  t.column("RESOURCES", Table::kLeft, 24);
  for (size_t i = 0; i < c.nodes.rows.size(); ++i) {
    const std::string state = c.nodes.at(i, "state").text;
    const bool silent = state != "DEAD" && c.nodes.at(i, "answers").integer == 0;
    const std::string note = state == "DEAD" ? c.nodes.at(i, "cause").text : c.nodes.at(i, "resources").text;
    t.row({c.nodes.at(i, "index").to_string(), state + (silent ? ", does not answer" : ""), c.nodes.at(i, "address").text,
           c.nodes.at(i, "host").text, ago(c.nodes.at(i, "since_ns").integer, now), printable(note)});
  }
  std::printf("as node %lld of the cluster of %s knows them\n", static_cast<long long>(c.index), c.head.c_str());
  if (!c.ended.empty()) std::printf("this node has ended: %s\n", printable(c.ended).c_str());
  t.print(stdout, common.full ? 0 : terminal_width());
  return Status();
}

}  // namespace ray::cli
