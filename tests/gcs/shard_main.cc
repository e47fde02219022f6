// A shard as a process of its own, for tests and benchmarks: gcs_shard DIR INDEX URL TOKEN [key=value…].
#include <cstdio>
#include <cstdlib>
#include <string>

#include "gcs/shard.h"

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: gcs_shard DIR INDEX URL TOKEN [ram=N] [segment=N] [retain=N] [backlog=N] "
                         "[parent=PID] [ready=FD] [flush_ms=N]\n");
    return 2;
  }
  ray::gcs::ShardOptions o;
  o.dir = argv[1];
  o.index = static_cast<uint32_t>(std::atoi(argv[2]));
  o.url = argv[3];
  o.token = argv[4];
  for (int k = 5; k < argc; ++k) {
    std::string arg = argv[k];
    size_t eq = arg.find('=');
    if (eq == std::string::npos) return 2;
    std::string key = arg.substr(0, eq);
    long long value = std::atoll(arg.c_str() + eq + 1);
    if (key == "ram") o.ram_bytes = static_cast<uint64_t>(value);
    else if (key == "segment") o.segment_bytes = static_cast<uint64_t>(value);
    else if (key == "retain") o.retain_bytes = static_cast<uint64_t>(value);
    else if (key == "backlog") o.backlog_bytes = static_cast<uint64_t>(value);
    else if (key == "parent") o.parent_pid = static_cast<int>(value);
    else if (key == "ready") o.ready_fd = static_cast<int>(value);
    else if (key == "flush_ms") o.flush_ns = value * 1000000;
    else return 2;
  }
  return ray::gcs::gcs_main(o);
}
