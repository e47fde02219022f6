// See worker_command.h.
#include "libray/node/worker_command.h"

#include "libray/base/proc.h"
#include "ray.h"

namespace ray::node {
namespace {

constexpr char kJavaMain[] = "org.libray.WorkerMain";

std::string variable(const Environment& env, const char* name) {
  auto it = env.find(name);
  return it == env.end() ? std::string() : it->second;
}

const char* const kNames[] = {"native", "Python", "Java", "Rust"};
const char* const kCode[] = {"LIBRAY_NATIVE_CODE", "LIBRAY_PYTHON_CODE", "LIBRAY_JAVA_CODE", "LIBRAY_RUST_CODE"};
const char* const kWhat[] = {"the program that registers its functions", "directories", "its class path",
                             "the program that registers its functions"};

// Also of numbers from a process that nobody vouches for.
bool known(int32_t language) { return language >= 0 && language < RAY_LANG_COUNT; }

std::string code_of(int32_t language, const WorkerCommand& given, const Environment& env) {
  return given.code.empty() ? variable(env, kCode[language]) : given.code;
}

Status no_code(int32_t language) {
  return error(RAY_UNSUPPORTED,
               "this job has no command for %s workers: say where their code lies (%s), with ray_worker_code or in %s, or "
               "give the command with ray_worker_command",
               kNames[language], kWhat[language], kCode[language]);
}

// A small heap that grows, one collector thread, no files in /tmp: many workers share a machine. What the user wants
// instead comes behind, where Java lets it win.
std::vector<std::string> java_command(const std::string& class_path, const Environment& env) {
  const std::string home = variable(env, "JAVA_HOME");
  std::vector<std::string> argv = {home.empty() ? "java" : home + "/bin/java", "-XX:+UseSerialGC", "-Xms8m",
                                   "-XX:-UsePerfData", "-XX:ReservedCodeCacheSize=64m"};
  const std::string more = variable(env, "LIBRAY_JAVA_OPTIONS");
  for (size_t at = 0; at < more.size();) {
    size_t end = more.find(' ', at);
    if (end == std::string::npos) end = more.size();
    if (end > at) argv.push_back(more.substr(at, end - at));
    at = end + 1;
  }
  argv.insert(argv.end(), {"-cp", class_path, kJavaMain});
  return argv;
}

}  // namespace

void pack_commands(const WorkerCommands& commands, wire::Writer* out) {
  out->array(static_cast<uint32_t>(commands.size()));
  for (const auto& [language, command] : commands) {
    out->array(3).int64(language).array(static_cast<uint32_t>(command.argv.size()));
    for (const std::string& a : command.argv) out->str(a);
    out->str(command.code);
  }
}

void read_commands(wire::Cursor* r, WorkerCommands* out) {
  for (uint32_t n = r->array(); n > 0 && r->ok(); --n) {
    r->array_of(3);
    const int32_t language = r->int32();
    if (!known(language)) return r->fail();
    WorkerCommand& c = (*out)[language];
    c = {};
    for (uint32_t k = r->array(); k > 0 && r->ok(); --k) c.argv.push_back(r->text());
    c.code = r->text();
  }
}

Status make_worker_command(int32_t language, const WorkerCommand& given, const Environment& env,
                           const std::string& own_folder, std::vector<std::string>* argv) {
  if (!known(language)) return error(RAY_INVALID_ARGUMENT, "language %d is none of RAY_LANG_*", language);
  if (!given.argv.empty()) {
    *argv = given.argv;
    return Status();
  }
  const std::string code = code_of(language, given, env);
  if (language == RAY_LANG_PYTHON) {
    const std::string interpreter = variable(env, "LIBRAY_PYTHON");
    *argv = {interpreter.empty() ? "python3" : interpreter, "-m", "libray._zygote"};
    return Status();
  }
  if (language == RAY_LANG_NATIVE && code.empty()) {
    const std::string path = own_folder + "/libray-worker";
    if (!is_program(path.c_str()))
      return error(RAY_UNAVAILABLE, "no generic native worker '%s': install libray completely", path.c_str());
    *argv = {path};
    return Status();
  }
  if (code.empty()) return no_code(language);
  if (language == RAY_LANG_JAVA)
    *argv = java_command(code, env);
  else
    *argv = {code};
  return Status();
}

void add_code_to_environment(int32_t language, const WorkerCommand& given, Environment* env) {
  if (language != RAY_LANG_PYTHON) return;
  const std::string code = code_of(language, given, *env);
  if (code.empty()) return;
  const std::string before = variable(*env, "PYTHONPATH");
  (*env)["PYTHONPATH"] = before.empty() ? code : code + ":" + before;
}

}  // namespace ray::node
