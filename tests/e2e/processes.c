/* processes.c -- see processes.h. Linux: /proc. */
#define _POSIX_C_SOURCE 200809L
#include "processes.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char kVariable[] = "LIBRAY_TEST_CLUSTER=";

const char* proc_mark(void) {
  static char mark[64];
  snprintf(mark, sizeof mark, "%ld", (long)getpid());
  setenv("LIBRAY_TEST_CLUSTER", mark, 1);
  return mark;
}

/* Reads a file of /proc; nul bytes stay. Returns the size, 0 if it cannot be read. */
static size_t slurp(long pid, const char* name, char* out, size_t capacity) {
  char path[64];
  size_t n = 0;
  FILE* file;
  snprintf(path, sizeof path, "/proc/%ld/%s", pid, name);
  file = fopen(path, "r");
  if (!file) return 0;
  n = fread(out, 1, capacity - 1, file);
  fclose(file);
  out[n] = 0;
  return n;
}

static bool is_zombie(long pid) {
  char text[512];
  char* after = slurp(pid, "stat", text, sizeof text) ? strrchr(text, ')') : NULL;
  return !after || after[2] == 'Z' || after[2] == 'X';
}

static bool has_mark(long pid, const char* mark) {
  static char text[1 << 17];
  size_t n = slurp(pid, "environ", text, sizeof text), at;
  char entry[128];
  snprintf(entry, sizeof entry, "%s%s", kVariable, mark);
  for (at = 0; at < n; at += strlen(text + at) + 1)
    if (strcmp(text + at, entry) == 0) return true;
  return false;
}

static bool command_holds(long pid, const char* text) {
  static char line[8192];
  size_t n = slurp(pid, "cmdline", line, sizeof line), i;
  for (i = 0; i + 1 < n; i++)
    if (line[i] == 0) line[i] = ' ';
  return n > 0 && strstr(line, text) != NULL;
}

size_t proc_find(const char* mark, const char* text, long* pids, size_t max) {
  DIR* proc = opendir("/proc");
  struct dirent* entry;
  size_t n = 0;
  while (proc && (entry = readdir(proc)) != NULL) {
    long pid = strtol(entry->d_name, NULL, 10);
    if (pid <= 0 || pid == (long)getpid() || !has_mark(pid, mark) || is_zombie(pid)) continue;
    if (text && !command_holds(pid, text)) continue;
    if (n < max) pids[n] = pid;
    n++;
  }
  if (proc) closedir(proc);
  return n;
}

bool proc_none_left(void* mark) { return proc_find((const char*)mark, NULL, NULL, 0) == 0; }

void proc_print(const char* mark) {
  static char line[8192];
  long pids[64];
  size_t n = proc_find(mark, NULL, pids, 64), i, k, size;
  for (i = 0; i < n && i < 64; i++) {
    size = slurp(pids[i], "cmdline", line, sizeof line);
    for (k = 0; k + 1 < size; k++)
      if (line[k] == 0) line[k] = ' ';
    printf("    %ld %s\n", pids[i], line);
  }
}

size_t proc_descriptors(long pid) {
  char path[64];
  struct dirent* entry;
  size_t n = 0;
  DIR* dir;
  snprintf(path, sizeof path, "/proc/%ld/fd", pid);
  dir = opendir(path);
  while (dir && (entry = readdir(dir)) != NULL)
    if (entry->d_name[0] != '.') n++;
  if (dir) closedir(dir);
  return n;
}

size_t proc_memfds(long pid) {
  char path[600], target[256];
  struct dirent* entry;
  size_t n = 0;
  ssize_t size;
  FILE* maps;
  DIR* dir;
  snprintf(path, sizeof path, "/proc/%ld/fd", pid);
  dir = opendir(path);
  while (dir && (entry = readdir(dir)) != NULL) {
    snprintf(path, sizeof path, "/proc/%ld/fd/%s", pid, entry->d_name);
    size = readlink(path, target, sizeof target - 1);
    if (size < 0) continue;
    target[size] = 0;
    if (strstr(target, "/memfd:")) n++;
  }
  if (dir) closedir(dir);
  snprintf(path, sizeof path, "/proc/%ld/maps", pid);
  maps = fopen(path, "r");
  while (maps && fgets(path, sizeof path, maps))
    if (strstr(path, "/memfd:")) n++;
  if (maps) fclose(maps);
  return n;
}

static long status_field(long pid, const char* field) {
  static char text[8192];
  char* at;
  if (!slurp(pid, "status", text, sizeof text)) return 0;
  at = strstr(text, field);
  return at ? strtol(at + strlen(field), NULL, 10) : 0;
}

size_t proc_threads(long pid) { return (size_t)status_field(pid, "\nThreads:"); }

long proc_rss_kb(long pid) { return status_field(pid, "\nVmRSS:"); }

long proc_shared_kb(long pid) { return status_field(pid, "\nRssShmem:"); }

size_t files_of_type(const char* directory, char type) {
  char path[1024];
  struct dirent* entry;
  struct stat st;
  size_t n = 0;
  DIR* dir = opendir(directory);
  while (dir && (entry = readdir(dir)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
    if (lstat(path, &st) != 0) continue;
    if (S_ISDIR(st.st_mode)) n += files_of_type(path, type);
    if (S_ISSOCK(st.st_mode) && type == 's') n++;
    if (S_ISREG(st.st_mode) && type == 'f') n++;
  }
  if (dir) closedir(dir);
  return n;
}
