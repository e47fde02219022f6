// What goes wrong elsewhere: exceptions, crashes and retries, actors that die, time limits.
#include <ray.hpp>

#include <csignal>
#include <iostream>
#include <thread>

int parse(const std::string& text) { return std::stoi(text); }  // throws std::invalid_argument

// Kills its own process the first time; the second execution succeeds.
std::string survives() {
  if (ray::this_task::attempt() == 1) std::raise(SIGKILL);
  return "second attempt";
}

class Memory {
 public:
  void keep(int x) { kept_ += x; }
  int kept() { return kept_; }
  void crash() { std::raise(SIGKILL); }

 private:
  int kept_ = 0;
};

void sleeps() {
  for (;;) {
    ray::this_task::check_cancelled();  // throws when it is time to end
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}
RAY_REMOTE(parse, survives, sleeps);
RAY_ACTOR(Memory, &Memory::keep, &Memory::kept, &Memory::crash);

int main() {
  ray::session session;

  // An exception comes back as an exception that says where it came from.
  try {
    ray::task(parse)("twelve").get();
  } catch (const ray::task_error& e) {
    std::cout << e.type_name() << " in " << e.function() << ": " << e.remote_message() << "\n";
  }
  // ... or as a value.
  ray::result<int> result = ray::task(parse)("12").get_result();
  std::cout << (result ? "parsed " + std::to_string(*result) : result.error().message()) << "\n";

  // A worker that dies is replaced, and its task runs again.
  std::cout << ray::task(survives, {.max_retries = 1})().get() << "\n";

  // An actor that dies starts again from its constructor: what it kept is gone.
  auto memory = ray::actor<Memory>({.max_restarts = 1, .max_task_retries = 1});
  memory.call(&Memory::keep, 5).get();
  memory.call({.max_retries = 0}, &Memory::crash).wait();
  std::cout << "kept " << memory.call(&Memory::kept).get() << "\n";

  // Time limits and cancellation.
  ray::ref<void> slow = ray::task(sleeps)();
  if (!slow.wait(std::chrono::milliseconds(50))) slow.cancel();
  try {
    slow.get();
  } catch (const ray::cancelled&) {
    std::cout << "cancelled\n";
  }
}
