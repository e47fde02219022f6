// What the C measurements see of a running cluster from outside: its processes in /proc, the files of its session.
// Called from the benchmark's only thread.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace bench {

// This process and all below it: pid -> "driver", "daemon", "shards" or "worker".
std::map<int, std::string> family();
// Processor time in ns, of all threads, by what the processes are.
std::map<std::string, double> cpu_by_kind();
// Resident memory in MB likewise. Pages that several of them map count in each.
std::map<std::string, double> rss_by_kind();
double rss_bytes(int pid);

// Megabytes of the blocks that the files below a folder take.
double disk_mb(const std::string& dir);
// Tasks that ran and whose lineage is in the tables of the session's shards, those included whose rows have gone again.
double tasks_in_tables(const std::string& session);

}  // namespace bench
