// An object that keeps state in a worker of its own: an actor. Handles can be sent to tasks, and found by name.
#include <ray.hpp>

#include <iostream>

class Counter {
 public:
  explicit Counter(int64_t start) : total_(start) {}
  int64_t add(int64_t x) { return total_ += x; }
  int64_t total() const { return total_; }

 private:
  int64_t total_;
};
RAY_ACTOR(Counter(int64_t), &Counter::add, &Counter::total);

// A task that is given a handle uses the same actor.
void add_ten_times(ray::actor_handle<Counter> counter) {
  for (int i = 0; i < 10; ++i) counter.call(&Counter::add, 1).get();
}
RAY_REMOTE(add_ten_times);

int main() {
  ray::session session;

  auto counter = ray::actor<Counter>({.name = "visits", .max_restarts = 1}, 100);
  counter.call(&Counter::add, 5);  // calls run one after the other, in the order they are made

  std::vector<ray::ref<void>> tasks;
  for (int i = 0; i < 4; ++i) tasks.push_back(ray::task(add_ten_times)(counter));
  ray::get(tasks);

  std::cout << ray::find_actor<Counter>("visits").call(&Counter::total).get() << "\n";
}
