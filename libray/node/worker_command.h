// With what command the workers of a language start. Pure: the daemon (node_workers.cc) gives what the job and the
// environment of its driver say, and runs what comes out.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libray/base/status.h"
#include "libray/wire/cursor.h"

namespace ray::node {

using Environment = std::map<std::string, std::string>;

// What a job said of the workers of one language: ray_worker_command or ray_runtime_options.worker_argv, else
// ray_worker_code.
struct WorkerCommand {
  std::vector<std::string> argv;
  std::string code;
  bool operator==(const WorkerCommand&) const = default;
};

// All of a job's, as they stand in the hello of its gateway on another node, under "commands": an array of
// [language, [argument...], code].
using WorkerCommands = std::map<int32_t, WorkerCommand>;
void pack_commands(const WorkerCommands& commands, wire::Writer* out);
void read_commands(wire::Cursor* r, WorkerCommands* out);

// The command. `env` is the driver's, `own_folder` that of rayd, where the generic native worker lies. RAY_UNSUPPORTED
// says what is missing.
Status make_worker_command(int32_t language, const WorkerCommand& given, const Environment& env,
                           const std::string& own_folder, std::vector<std::string>* argv);

// Changes what the environment of such workers needs: Python looks for modules where the code lies.
void add_code_to_environment(int32_t language, const WorkerCommand& given, Environment* env);

}  // namespace ray::node
