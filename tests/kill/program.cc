// program.cc -- the C++ program of the kill matrix; program.c says what it is told by the environment and what its exit
// status means. The steps are those of program.c where ray.hpp has a surface of its own: futures of values, arrays,
// exceptions, generators, actors.
#include <ray.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// ---- what workers run ----

int64_t add(int64_t a, int64_t b) { return a + b; }

constexpr size_t kLarge = 90'000;  // numbers: several arrays do not fit into the store together

std::vector<int64_t> large(int64_t seed) {
  std::vector<int64_t> out(kLarge);
  std::iota(out.begin(), out.end(), seed);
  return out;
}

bool is_large(std::span<const int64_t> found, int64_t seed) {
  for (size_t i = 0; i < found.size(); ++i)
    if (found[i] != seed + static_cast<int64_t>(i)) return false;
  return found.size() == kLarge;
}

ray::array_builder<int64_t> fill(int64_t seed) {
  ray::array_builder<int64_t> out(ray::as_result, kLarge);
  std::iota(out.begin(), out.end(), seed);
  return out;
}

int64_t check_fill(int64_t seed, std::span<const int64_t> found) { return is_large(found, seed) ? seed : -1; }

int64_t fib(int64_t n);

ray::generator<int64_t> count_up(int64_t n, int64_t base) {
  for (int64_t i = 0; i < n; ++i) co_yield base + i;
}

int64_t throws(int64_t x) { throw std::range_error("it is " + std::to_string(x)); }

class Counter {
 public:
  int64_t next() { return ++n_; }
  int64_t echo(int64_t x) { return x; }

 private:
  int64_t n_ = 0;
};
RAY_REMOTE(add, fill, check_fill, fib, count_up, throws);
RAY_ACTOR(Counter, &Counter::next, &Counter::echo);

const ray::task_options kForever{.max_retries = RAY_RETRIES_INFINITE};

int64_t fib(int64_t n) {  // waits for its children
  if (n < 2) return n;
  auto a = ray::task(fib, kForever)(n - 1), b = ray::task(fib, kForever)(n - 2);
  return a.get() + b.get();
}

// ---- verdicts of the driver ----

struct wrong : std::runtime_error {
  using std::runtime_error::runtime_error;
};
using codes = std::initializer_list<ray_code>;  // what deaths of workers may cause
bool g_workers, g_node, g_node_died;
long g_values, g_errors;

// What the death of the node explains: it ends everything, at whatever stage it was.
const codes kNodeGone = {RAY_NODE_DIED,   RAY_WORKER_CRASHED, RAY_OBJECT_LOST, RAY_CANCELLED,
                         RAY_UNAVAILABLE, RAY_ACTOR_DIED,     RAY_STORE_FULL};

bool has(codes all, ray_code code) { return std::find(all.begin(), all.end(), code) != all.end(); }

void expect_allowed(const std::string& step, const ray::error& e, codes worker_codes) {
  ++g_errors;
  if (!*e.what()) throw wrong(step + ": an error without a message");
  if (g_workers && has(worker_codes, e.code())) return;
  if (!g_node || !has(kNodeGone, e.code())) throw wrong(step + ": " + ray_code_name(e.code()) + ": " + e.what());
  g_node_died = true;
}

// What f returns, or nothing after an error that is allowed.
template <class F>
auto attempt(const std::string& step, codes worker_codes, F f) -> std::optional<decltype(f())> {
  try {
    return f();
  } catch (const ray::error& e) {
    expect_allowed(step, e, worker_codes);
    return std::nullopt;
  }
}

using number = std::optional<ray::ref<int64_t>>;  // nothing: its submission failed

std::optional<int64_t> take(const std::string& step, const number& ref, codes worker_codes = {}) {
  if (!ref) return std::nullopt;
  std::optional<int64_t> value = attempt(step, worker_codes, [&] { return ref->get(); });
  g_values += value.has_value();
  return value;
}

void expect(const std::string& step, const number& ref, int64_t right, codes worker_codes = {}) {
  std::optional<int64_t> value = take(step, ref, worker_codes);
  if (value && *value != right) throw wrong(step + ": " + std::to_string(*value) + ", not " + std::to_string(right));
}

// ---- steps ----

void sums(int64_t base) {  // a chain through references beside loose tasks
  std::vector<number> refs;
  for (int64_t i = 0; i < 100; ++i) refs.push_back(attempt("add", {}, [&] { return ray::task(add, kForever)(base, i); }));
  number chain = refs[0];
  for (int i = 0; i < 20 && chain; ++i) chain = attempt("chain", {}, [&] { return ray::task(add, kForever)(*chain, 1); });
  for (int64_t i = 0; i < 100; ++i) expect("sums", refs[static_cast<size_t>(i)], base + i);
  expect("chain", chain, base + 20);
}

void without_retries(int64_t base) {
  std::vector<number> refs;
  for (int64_t i = 0; i < 100; ++i)
    refs.push_back(attempt("add", {}, [&] { return ray::task(add, {.max_retries = 0})(base, i); }));
  for (int64_t i = 0; i < 100; ++i)
    expect("without retries", refs[static_cast<size_t>(i)], base + i, {RAY_WORKER_CRASHED});
}

void large_objects(int64_t base) {  // more than the store holds: spilled and restored
  std::vector<std::optional<ray::ref<std::vector<int64_t>>>> puts;
  std::vector<number> checks;
  for (int64_t i = 0; i < 8; ++i) puts.push_back(attempt("put", {}, [&] { return ray::put(large(base + i)); }));
  for (int64_t i = 0; i < 8; ++i)
    checks.push_back(!puts[static_cast<size_t>(i)] ? number{} : attempt("check", {}, [&] {
      return ray::task(check_fill, kForever)(base + i, *puts[static_cast<size_t>(i)]);
    }));
  for (int64_t i = 0; i < 8; ++i) {
    expect("large argument", checks[static_cast<size_t>(i)], base + i);
    std::optional<bool> right = attempt("large result", {}, [&] {
      ray::array<int64_t> view = ray::task(fill, kForever)(base + i).get();
      return is_large(view, base + i);
    });
    if (right && !*right) throw wrong("large result: damaged");
  }
}

void recursion(int64_t) { expect("recursion", attempt("fib", {}, [] { return ray::task(fib, kForever)(7); }), 13); }

void generator(int64_t base) {
  int64_t n = 0;
  const ray::task_options options{.max_retries = RAY_RETRIES_INFINITE, .stream_window = 8};
  attempt("generator", {}, [&] {
    for (int64_t item : ray::task(count_up, options)(60, base)) {
      if (item != base + n++) throw wrong("generator: " + std::to_string(item) + " as item " + std::to_string(n));
      ++g_values;
    }
    return true;
  });
  if (n != 60 && !g_node_died) throw wrong("generator: " + std::to_string(n) + " items, not 60");
}

void exceptions(int64_t base) {  // an exception is one for the caller too, whoever is killed
  for (int64_t i = 0; i < 10; ++i) {
    try {
      ray::task(throws, kForever)(base + i).get();
      throw wrong("a function that throws gave a value");
    } catch (const ray::task_error& e) {
      if (e.remote_message() != "it is " + std::to_string(base + i) || e.type_name() != "std::range_error")
        throw wrong(std::string("exceptions: ") + e.what());
      ++g_values;
    } catch (const ray::error& e) {
      expect_allowed("exceptions", e, {});
    }
  }
}

using counter = std::optional<ray::actor_handle<Counter>>;

counter make(int restarts, int retries) {
  const ray::actor_options options{.max_restarts = restarts, .max_task_retries = retries};
  return attempt("actor", {}, [&] { return ray::actor<Counter>(options); });
}

template <class F>
std::vector<number> calls(const counter& actor, F call) {
  std::vector<number> out;
  for (int64_t i = 0; i < 40 && actor; ++i)
    out.push_back(attempt("call", {RAY_ACTOR_DIED}, [&] { return call(*actor, i); }));
  return out;
}

const auto kNext = [](const ray::actor_handle<Counter>& c, int64_t) { return c.call(&Counter::next); };

void mortal_actor(int64_t) {  // 1, 2, 3, ..., then, if its worker is killed, errors to the end
  counter actor = make(0, 0);
  int64_t i = 0;
  bool dead = false;
  for (const number& ref : calls(actor, kNext)) {
    std::optional<int64_t> value = take("mortal actor", ref, {RAY_ACTOR_DIED});
    ++i;
    if (value && dead) throw wrong("a dead actor answered call " + std::to_string(i));
    if (value && *value != i) throw wrong("mortal actor: " + std::to_string(*value) + ", not " + std::to_string(i));
    dead |= !value;
  }
}

void restarting_actor(int64_t) {  // calls are lost, never repeated; each incarnation counts from 1
  counter actor = make(-1, 0);
  int64_t last = 0;
  for (const number& ref : calls(actor, kNext)) {
    std::optional<int64_t> value = take("restarting actor", ref, {RAY_ACTOR_RESTARTING});
    if (!value) continue;
    if (*value != last + 1 && (!g_workers || *value != 1))
      throw wrong("restarting actor: " + std::to_string(*value) + " after " + std::to_string(last));
    last = *value;
  }
}

void immortal_actor(int64_t base) {  // with restarts and retries every call is answered
  counter actor = make(-1, -1);
  int64_t i = 0;
  for (const number& ref :
       calls(actor, [&](const ray::actor_handle<Counter>& c, int64_t k) { return c.call(&Counter::echo, base + k); }))
    expect("immortal actor", ref, base + i++);
}

void (*const kSteps[])(int64_t) = {sums,       without_retries, large_objects,    recursion,     generator,
                                   exceptions, mortal_actor,    restarting_actor, immortal_actor};

// ---- the run ----

std::string in_run(const char* name) { return std::string(std::getenv("KILL_DIR")) + "/" + name; }

int run() {
  const char* seed = std::getenv("KILL_SEED");
  std::mt19937_64 random(seed ? std::strtoull(seed, nullptr, 10) : 1);
  std::ofstream(in_run("ready"));
  int rounds = 0;
  do {  // each round: every step once, in an order of its own
    std::vector<void (*)(int64_t)> steps(std::begin(kSteps), std::end(kSteps));
    std::shuffle(steps.begin(), steps.end(), random);
    for (auto step : steps) step(static_cast<int64_t>(random() >> 20));
    ++rounds;
  } while (!g_node_died && !std::filesystem::exists(in_run("stop")));
  return rounds;
}

}  // namespace

int main() {
  std::cout << std::unitbuf;
  const std::string victims = std::getenv("KILL_VICTIMS") ? std::getenv("KILL_VICTIMS") : "";
  g_workers = victims.find("worker") != std::string::npos;
  g_node = victims.find("node") != std::string::npos;
  try {
    ray::init_options options;
    if (const char* folder = std::getenv("KILL_DIR")) options.session_dir = folder;
    options.num_cpus = 2;
    options.store_bytes = 8 << 20;
    // A worker does not come back from here.
    if (!attempt("init", {}, [&] { return ray::init(options), true; })) {
      std::cout << "no cluster\n";
      return 0;
    }
    const int rounds = run();
    attempt("shutdown", {}, [] { return ray::shutdown(), true; });
    std::cout << rounds << " rounds, " << g_values << " values, " << g_errors << " errors"
              << (g_node_died ? ", the node died" : "") << "\n";
  } catch (const std::exception& e) {
    std::cout << e.what() << "\n";
    return 1;
  }
}
