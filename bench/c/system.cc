// See system.h.
#include "system.h"

#include <dirent.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bench {
namespace {

double number(const std::string& path, const char* sql) {
  sqlite3* db = nullptr;
  sqlite3_stmt* statement = nullptr;
  double result = 0;
  if (sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr) == SQLITE_OK &&
      sqlite3_busy_timeout(db, 10000) == SQLITE_OK &&
      sqlite3_prepare_v2(db, sql, -1, &statement, nullptr) == SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW)
    result = sqlite3_column_double(statement, 0);
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return result;
}

struct File {
  std::string path;
  double bytes;  // of its blocks
};

void find_files(const std::string& dir, std::vector<File>* out) {
  DIR* d = opendir(dir.c_str());
  if (!d) return;
  while (dirent* e = readdir(d)) {
    std::string name = e->d_name, path = dir + "/" + name;
    struct stat st;
    if (name == "." || name == ".." || lstat(path.c_str(), &st) != 0) continue;
    if (S_ISDIR(st.st_mode)) find_files(path, out);
    if (S_ISREG(st.st_mode)) out->push_back({path, static_cast<double>(st.st_blocks) * 512});
  }
  closedir(d);
}

double cpu_ns(int pid) {
  const std::string folder = "/proc/" + std::to_string(pid) + "/task";
  double total = 0;
  DIR* tasks = opendir(folder.c_str());
  while (dirent* e = tasks ? readdir(tasks) : nullptr) {
    FILE* f = fopen((folder + "/" + e->d_name + "/schedstat").c_str(), "r");
    double ns = 0;
    if (f && fscanf(f, "%lf", &ns) == 1) total += ns;
    if (f) fclose(f);
  }
  if (tasks) closedir(tasks);
  return total;
}

std::map<std::string, double> by_kind(double (*value)(int pid)) {
  std::map<std::string, double> total;
  for (const auto& [pid, kind] : family()) total[kind] += value(pid);
  return total;
}

}  // namespace

std::map<int, std::string> family() {
  std::map<int, int> parents;
  DIR* proc = opendir("/proc");
  while (dirent* e = proc ? readdir(proc) : nullptr) {
    int pid = atoi(e->d_name), parent = 0;
    FILE* f = pid > 0 ? fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r") : nullptr;
    if (!f) continue;
    if (fscanf(f, "%*d (%*[^)]) %*c %d", &parent) == 1) parents[pid] = parent;
    fclose(f);
  }
  if (proc) closedir(proc);
  std::map<int, std::string> found{{getpid(), "driver"}};
  for (auto [pid, parent] : parents) {
    int top = pid;
    for (int depth = 0; top != getpid() && depth < 4; ++depth) top = parents.count(top) ? parents[top] : 0;
    if (top != getpid() || pid == getpid()) continue;
    char line[512] = "";
    FILE* f = fopen(("/proc/" + std::to_string(pid) + "/cmdline").c_str(), "r");
    size_t n = f ? fread(line, 1, sizeof line - 2, f) : 0;
    if (f) fclose(f);
    const char* second = n ? line + strlen(line) + 1 : "";
    found[pid] = strcmp(second, "node") == 0 ? "daemon" : strcmp(second, "gcs") == 0 ? "shards" : "worker";
  }
  return found;
}

std::map<std::string, double> cpu_by_kind() { return by_kind(cpu_ns); }

std::map<std::string, double> rss_by_kind() {
  return by_kind([](int pid) { return rss_bytes(pid) / 1e6; });
}

double rss_bytes(int pid) {
  long pages = 0;
  FILE* f = fopen(("/proc/" + std::to_string(pid) + "/statm").c_str(), "r");
  if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double disk_mb(const std::string& dir) {
  std::vector<File> files;
  find_files(dir, &files);
  double bytes = 0;
  for (const File& f : files) bytes += f.bytes;
  return bytes / 1e6;
}

double tasks_in_tables(const std::string& session) {
  std::vector<File> files;
  find_files(session, &files);
  double n = 0;
  for (const auto& [f, bytes] : files)
    if (f.size() > 3 && f.compare(f.size() - 3, 3, ".db") == 0)
      n += number(f, "SELECT COUNT(*) FROM task_rows WHERE end_ns IS NOT NULL") +
           number(f, "SELECT value FROM meta WHERE key='pruned_tasks'");
  return n;
}

}  // namespace bench
