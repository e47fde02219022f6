// What the processes of a living session run at this moment, read from the memory that they share with
// their daemon (wire/protocol.h, RunningSlot): also that of a hung node. One thread.
#pragma once
#include <map>
#include <string>

#include "libray/wire/protocol.h"

namespace ray::cli {

struct RunningRow {
  wire::RunningTask task;
  int pid = 0;
};
// By the task's id in hexadecimal digits. Empty for a dead session, and for one of another user.
std::map<std::string, RunningRow> running_tasks(const std::string& session);

}  // namespace ray::cli
