// main.cc -- the C++ driver: reads programs from standard input, one line each, and answers on
// standard output. See ../SPEC.md.
#include <dirent.h>
#include <unistd.h>

#include <csignal>
#include <iostream>

#include "machine.h"

std::chrono::milliseconds g_bound{20000};
std::string g_program;

namespace {

// init cpus=2 store=BYTES resources=disk:2 bound=MS
bool start(const std::string& line) {
  ray::init_options o;
  for (size_t at = 0; at < line.size();) {
    const size_t end = std::min(line.find(' ', at), line.size());
    const std::string word = line.substr(at, end - at);
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals),
                      value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (key == "cpus") o.num_cpus = std::stod(value);
    if (key == "store") o.store_bytes = std::stoull(value);
    if (key == "spill") o.spill_bytes = std::stoull(value);
    if (key == "bound") g_bound = std::chrono::milliseconds(std::stol(value));
    if (key == "resources") o.resources = amounts(value);
    at = end + 1;
  }
  o.ns = "model";  // all drivers share it
  if (auto started = ray::init_result(o); !started) {
    print_line(std::string("failed ") + started.error().name() + " " + started.error().message());
    return false;
  }
  print_line("started " + std::to_string(::getpid()) + " " + ray::session_dir());
  return true;
}

void query(const std::string& what) {
  auto answer = ray::query_result(what);
  std::string hex = answer ? "q " : "q";
  for (unsigned char c : answer.value_or("")) {
    hex += "0123456789abcdef"[c >> 4];
    hex += "0123456789abcdef"[c & 15];
  }
  print_line(hex);
}

// Descriptors and threads of this process.
void count() {
  int n[2] = {0, 0};
  const char* folders[] = {"/proc/self/fd", "/proc/self/task"};
  for (int i = 0; i < 2; i++) {
    DIR* dir = ::opendir(folders[i]);
    while (dir && ::readdir(dir)) n[i]++;
    if (dir) ::closedir(dir);
  }
  print_line("n " + std::to_string(n[0] - 3) + " " + std::to_string(n[1] - 2));
}

// One line of standard input, unbuffered: `fault` reads from it too.
bool next_line(std::string* out) {
  out->clear();
  for (int c; (c = std::fgetc(stdin)) != EOF;) {
    if (c == '\n') return true;
    out->push_back(static_cast<char>(c));
  }
  return !out->empty();
}

void serve() {
  for (std::string line; next_line(&line);) {
    if (line.rfind("init", 0) == 0) {
      if (!start(line.substr(4))) return;
    } else if (line.rfind("run ", 0) == 0) {
      {
        Machine m;
        m.is_driver = true;
        m.run(line.substr(4), "");
      }
      print_line("done");
    } else if (line.rfind("query ", 0) == 0) {
      query(line.substr(6));
    } else if (line == "count") {
      count();
    } else if (line == "end") {
      print_line(std::string("bye ") +
                 ray::shutdown_result(std::chrono::seconds(5)).error().name());
      return;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  char self[512] = "";
  if (::readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 3;
  g_program = self;
  std::setvbuf(stdin, nullptr, _IONBF, 0);
  // In a program of C and C++, which are one language: the other driver is this one's worker.
  if (const char* other = std::getenv("CONFORMANCE_WORKER"); other && std::getenv("LIBRAY_WORKER") && g_program != other)
    return ::execl(other, other, nullptr);
  if (std::getenv("LIBRAY_WORKER")) ray::init();  // does not return
  if (argc > 5 && std::string(argv[1]) == "--join") return join_main(argv);
  std::signal(SIGPIPE, SIG_IGN);
  serve();
  return 0;
}
