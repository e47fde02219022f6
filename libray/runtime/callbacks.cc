// See callbacks.h.
#include "libray/runtime/callbacks.h"

#include <utility>

namespace ray {

namespace {
thread_local const Callbacks* t_calls_back = nullptr;  // whose thread this is, or whose callback runs on it
}

const Callbacks* Callbacks::enter(const Callbacks* of) { return std::exchange(t_calls_back, of); }
bool Callbacks::here() const { return t_calls_back == this; }

void Callbacks::add(std::function<void()> f) {
  std::lock_guard lock(mutex_);
  list_.push_back(std::move(f));
}

void Callbacks::add_and_ring(std::function<void()> f) {
  add(std::move(f));
  bells_.poke();
}

void Callbacks::log_later(LogLevel level, const char* id, std::string text) {
  add_and_ring([level, id, text = std::move(text)] { log(level, "runtime", id, "%s", text.c_str()); });
}

void Callbacks::run() {
  const Callbacks* outer = enter(this);
  run_each();
  enter(outer);
}

void Callbacks::run_each() {
  for (;;) {
    std::function<void()> f;
    {
      std::lock_guard lock(mutex_);
      if (list_.empty()) return;
      f = std::move(list_.front());
      list_.pop_front();
    }
    f();
  }
}

bool Callbacks::empty() {
  std::lock_guard lock(mutex_);
  return list_.empty();
}

}  // namespace ray
