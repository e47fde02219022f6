// graph.cc -- kill everything, rebuild the computation graph from the SQLite files alone, compare.
//
// A driver (a child process) runs a random program of tasks, nested tasks and actors, and writes
// down every submission as it makes it: the oracle. Then driver, workers, daemon and shards are
// killed with one sweep of SIGKILL, and gcs/graph.h must find the same data, control and stateful
// edges.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "gcs/graph.h"

extern "C" {
#include "kit.h"
#include "processes.h"
}

namespace {

// ---- the oracle: one line per submission, appended by whoever submits
// ------------------------------

std::string hex(const ray_id& id) {
  char text[2 * RAY_ID_SIZE + 1];
  ray_id_to_hex(&id, text);
  return text;
}

ray_id producer(ray_id id) {
  memset(id.b + 20, 0, 4);
  return id;
}

ray_id current_task() {
  ray_context context;
  context.struct_size = sizeof context;
  CHECK_OK(ray_runtime_context(rt, &context, &err));
  return context.task;
}

// T task parent actor|- object...
void remember(const std::string& path, const ray_id& task, const std::string& actor,
              const std::vector<ray_ref*>& args) {
  std::ostringstream line;
  line << "T " << hex(task) << " " << hex(current_task()) << " " << actor;
  for (ray_ref* ref : args) line << " " << hex(ray_ref_id(ref));
  line << "\n";
  FILE* file = fopen(path.c_str(), "a");  // O_APPEND: lines of several processes do not mix
  CHECK(file != nullptr);
  setvbuf(file, nullptr, _IOFBF, 1 << 16);
  fputs(line.str().c_str(), file);
  fclose(file);
}

// ---- functions: (path of the oracle, seed, numbers...) -> a number
// ---------------------------------

int64_t sum_of_arguments(ray_task* task) {
  const ray_buffer* args = nullptr;
  size_t n = ray_task_args(task, &args);
  int64_t sum = 1, value;
  for (size_t i = 2; i < n; i++) {
    CHECK_EQ(args[i].size, 8);
    memcpy(&value, args[i].data, 8);
    sum += value;
  }
  return sum;
}

ray_ref* submit(const std::string& oracle, const char* function, int64_t seed,
                const std::vector<ray_ref*>& inputs) {
  std::vector<ray_arg> args{kit_text(oracle.c_str()), kit_i64(&seed)};
  for (ray_ref* ref : inputs) args.push_back(kit_ref(ref));
  ray_ref* out = kit_submit(function, args.data(), args.size(), nullptr);
  remember(oracle, producer(ray_ref_id(out)), "-", inputs);
  return out;
}

ray_code combine(ray_task* task, void*) { return kit_return_i64(task, 0, sum_of_arguments(task)); }

ray_code spread(ray_task* task, void*) {  // a small tree of its own
  char path[512];
  std::string oracle = kit_arg_text(task, 0, path, sizeof path);
  std::mt19937_64 random(static_cast<uint64_t>(kit_arg_i64(task, 1)));
  std::vector<ray_ref*> made;
  int64_t sum = sum_of_arguments(task);
  for (uint64_t i = 0, n = 1 + random() % 4; i < n; i++) {
    std::vector<ray_ref*> inputs;
    if (!made.empty() && random() % 2) inputs.push_back(made[random() % made.size()]);
    bool deeper = random() % 4 == 0;
    made.push_back(
        submit(oracle, deeper ? "spread" : "combine", static_cast<int64_t>(random() >> 8), inputs));
  }
  for (ray_ref* ref : made) sum += kit_take_i64(ref);
  return kit_return_i64(task, 0, sum);
}

int64_t g_total;
ray_code total_create(ray_task* task, void*) { return ray_task_set_self(task, &g_total, nullptr); }
ray_code total_add(ray_task* task, void*) {
  g_total += sum_of_arguments(task);
  return kit_return_i64(task, 0, g_total);
}

void register_all() {
  CHECK_OK(ray_register_function(ray_cstr("combine"), combine, nullptr, &err));
  CHECK_OK(ray_register_function(ray_cstr("spread"), spread, nullptr, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Total"), total_create, nullptr, nullptr, &err));
  CHECK_OK(ray_register_method(ray_cstr("Total"), ray_cstr("add"), total_add, nullptr, &err));
}

// ---- the driver
// ----------------------------------------------------------------------------------------

struct Actor {
  ray_actor* handle;
  std::string id;
};

Actor create_actor(const std::string& oracle) {
  Actor a{kit_actor("Total", nullptr), ""};
  a.id = hex(ray_actor_id(a.handle));
  remember(oracle, producer(ray_actor_id(a.handle)), a.id, {});
  return a;
}

ray_ref* call_actor(const std::string& oracle, const Actor& a,
                    const std::vector<ray_ref*>& inputs) {
  int64_t zero = 0;
  std::vector<ray_arg> args{kit_text(oracle.c_str()), kit_i64(&zero)};
  for (ray_ref* ref : inputs) args.push_back(kit_ref(ref));
  ray_ref* out = kit_call(a.handle, "add", args.data(), args.size());
  remember(oracle, producer(ray_ref_id(out)), a.id, inputs);
  return out;
}

void run_program(const std::string& oracle, uint64_t seed, int steps) {
  std::mt19937_64 random(seed);
  std::vector<ray_ref*> made;
  std::vector<Actor> actors;
  for (int i = 0; i < 3; i++) actors.push_back(create_actor(oracle));
  for (int i = 0; i < steps; i++) {
    std::vector<ray_ref*> inputs;
    for (uint64_t k = random() % 4; k > 0 && !made.empty(); k--)
      inputs.push_back(made[random() % made.size()]);
    uint64_t what = random() % 10;
    if (what < 3)
      made.push_back(call_actor(oracle, actors[random() % 3], inputs));
    else
      made.push_back(submit(oracle, what < 5 ? "spread" : "combine",
                            static_cast<int64_t>(random() >> 8), inputs));
  }
  for (ray_ref* ref : made) kit_get_i64(ref);  // nothing is released: nothing ends by itself
}

size_t count_lines(const std::string& path) {
  std::ifstream in(path);
  return static_cast<size_t>(
      std::count(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>(), '\n'));
}

struct Expected {
  std::string oracle;
  size_t found = 0;
};

// Whether the control store tells of every task of the oracle, with its end.
bool all_is_journaled(void* user) {
  auto* e = static_cast<Expected*>(user);
  ray_buffer buffer = RAY_BUFFER_INIT;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("tasks"), ray_bytes{nullptr, 0}, &buffer, &err));
  e->found = mp_rows_with(mp_of(buffer.data, buffer.size), "state", "FINISHED");
  ray_buffer_release(&buffer);
  return e->found >= count_lines(e->oracle);
}

[[noreturn]] void drive(const std::string& oracle, const std::string& ready, uint64_t seed,
                        bool to_the_end) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // should the test fail, it goes with it
  kit_init();
  ray_str dir = ray_runtime_session_dir(rt);
  std::ofstream(ready + ".tmp") << std::string(dir.data, dir.size);
  if (to_the_end) {
    run_program(oracle, seed, 300);
    Expected expected{oracle, 0};
    if (!kit_until(all_is_journaled, &expected, 30))
      kit_fail(__FILE__, __LINE__, "%zu of %zu tasks are journaled", expected.found,
               count_lines(oracle));
    rename((ready + ".tmp").c_str(), ready.c_str());
    for (;;) pause();
  }
  rename((ready + ".tmp").c_str(), ready.c_str());
  for (;;) run_program(oracle, seed++, 100);
}

// ---- the comparison
// ----------------------------------------------------------------------------------

struct Oracle {
  std::map<std::string, std::string> parent;               // task -> parent
  std::map<std::string, std::multiset<std::string>> data;  // task -> objects that it takes
  std::map<std::string, std::vector<std::string>> actors;  // actor -> its tasks in order
};

Oracle read_oracle(const std::string& path) {
  Oracle o;
  std::ifstream in(path);
  std::string line, word, task, parent, actor;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    words >> word >> task >> parent >> actor;
    o.parent[task] = parent;
    o.data[task];
    while (words >> word) o.data[task].insert(word);
    if (actor != "-") o.actors[actor].push_back(task);
  }
  return o;
}

// Every task, control edge, data edge of the oracle; with `exactly`, and no other.
void compare(const ray::gcs::Graph& graph, const Oracle& oracle, bool exactly) {
  std::map<std::string, std::multiset<std::string>> data;
  for (const auto& edge : graph.data) data[edge.consumer.hex()].insert(edge.object.hex());
  size_t found = 0;
  for (const auto& task : graph.tasks) {
    auto it = oracle.parent.find(task.id.hex());
    if (it == oracle.parent.end()) {
      if (exactly)
        kit_fail(__FILE__, __LINE__, "task %s was never submitted", task.id.hex().c_str());
      continue;
    }
    found++;
    if (!task.submitted) continue;  // only its execution reached the files
    if (it->second != task.parent.hex())
      kit_fail(__FILE__, __LINE__, "the parent of %s is wrong", it->first.c_str());
    if (data[it->first] != oracle.data.at(it->first))
      kit_fail(__FILE__, __LINE__, "the arguments of %s are wrong", it->first.c_str());
  }
  if (exactly) CHECK_EQ(found, oracle.parent.size());
  for (const auto& [actor, expected] : oracle.actors) {
    std::vector<std::string> order;
    for (const auto& [id, tasks] : graph.stateful)
      if (id.hex() == actor)
        for (const auto& task : tasks) order.push_back(task.hex());
    if (exactly && order != expected)
      kit_fail(__FILE__, __LINE__, "actor %s: %zu of %zu methods, or another order", actor.c_str(),
               order.size(), expected.size());
    for (size_t i = 0, at = 0; i < order.size(); i++) {  // a subsequence at least
      while (at < expected.size() && expected[at] != order[i]) at++;
      if (at == expected.size() && !exactly) break;
      CHECK(at < expected.size());
    }
  }
}

void kill_everything(pid_t driver, const char* mark) {
  long pids[128];
  kill(driver, SIGKILL);  // forked, not executed: it carries no mark
  for (size_t n = 1; n > 0;) {
    n = proc_find(mark, nullptr, pids, 128);
    for (size_t i = 0; i < n && i < 128; i++) kill(static_cast<pid_t>(pids[i]), SIGKILL);
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
  }
}

void rebuild(uint64_t seed, bool to_the_end) {
  std::string oracle = kit_path("oracle"), ready = kit_path("ready"), dir;
  const char* mark = proc_mark();
  pid_t pid = fork();
  if (pid == 0) drive(oracle, ready, seed, to_the_end);
  kit_kill_at_exit(pid);
  kit_await(ready.c_str());
  std::getline(std::ifstream(ready), dir);
  if (!to_the_end)
    while (count_lines(oracle) < 2000) kit_pause();  // in the middle of it
  kill_everything(pid, mark);
  auto graph = ray::gcs::load_graph(dir, true);
  while (graph.status().code() == RAY_WRONG_STATE) {  // a thread of a killed shard is still dying
    kit_pause();
    graph = ray::gcs::load_graph(dir, true);
  }
  if (!graph.ok()) kit_fail(__FILE__, __LINE__, "%s", graph.status().message().c_str());
  ray::gcs::GraphReport report = ray::gcs::check_graph(*graph);
  printf("    %zu tasks, %zu data, %zu control, %zu stateful edges\n", size_t(report.tasks),
         size_t(report.data_edges), size_t(report.control_edges), size_t(report.stateful_edges));
  if (to_the_end)
    for (const std::string& violation : report.violations)
      kit_fail(__FILE__, __LINE__, "%s", violation.c_str());
  CHECK(report.tasks > 300);
  compare(*graph, read_oracle(oracle), to_the_end);
}

void after_everything_is_killed() { rebuild(20260101, true); }
void another_program() { rebuild(7, true); }
// What was in flight may be missing; what is there must be true.
void in_the_middle() { rebuild(99, false); }

const kit_test tests[] = {KIT_TEST(after_everything_is_killed), KIT_TEST(another_program),
                          KIT_TEST(in_the_middle)};

}  // namespace

KIT_MAIN(tests, register_all)
