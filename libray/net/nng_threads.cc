// See nng_threads.h.
#include "libray/net/nng_threads.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "libray/base/thread.h"

namespace ray::net {
namespace {

#ifdef LIBRAY_NNG_REDIRECTED
constexpr long kMaxCpus = 2;  // that NNG is told of, see ray_nng_sysconf
#else
constexpr long kMaxCpus = 1024;
#endif

// As NNG 1.5.2 does at its start: two threads per processor for callbacks (16 at most), one each
// for timeouts (256 at most), one for sockets, four for host names, one for its timers and one that
// frees.
size_t threads_of_nng() {
  long cpus = std::clamp<long>(::sysconf(_SC_NPROCESSORS_ONLN), 1, kMaxCpus);
  return static_cast<size_t>(std::min(2 * cpus, 16l) + std::min(cpus, 256l) + 7);
}

struct Parked {
  pthread_t thread{};
  void* (*run)(void*) = nullptr;
  void* argument = nullptr;
  bool released = false;
};

struct Park {
  std::mutex mutex;
  std::condition_variable released;
  std::vector<Parked*> waiting;
};

Park& park() {
  static auto* p = new Park;  // NNG's threads outlive static objects
  return *p;
}

void* wait_for_work(void* parked) {
  auto* self = static_cast<Parked*>(parked);
  {
    std::unique_lock lock(park().mutex);
    park().released.wait(lock, [self] { return self->released; });
  }
  auto run = self->run;
  void* argument = self->argument;
  delete self;
  return run ? run(argument) : nullptr;
}

}  // namespace

Status park_nng_threads() {
  for (size_t n = threads_of_nng(); n > 0; --n) {
    auto* p = new Parked;
    int rc = RAY_FAULT_FAILS("thread.start")
                 ? EAGAIN
                 : ::pthread_create(&p->thread, nullptr, wait_for_work, p);
    if (rc != 0) {
      delete p;
      end_parked_threads();
      return no_process_error(rc, "the threads of a connection to the control store");
    }
    std::lock_guard lock(park().mutex);
    park().waiting.push_back(p);
  }
  return Status();
}

void end_parked_threads() {
  std::vector<pthread_t> ended;
  {
    std::lock_guard lock(park().mutex);
    for (Parked* p : park().waiting) {
      p->released = true;
      ended.push_back(p->thread);
    }
    park().waiting.clear();
  }
  park().released.notify_all();
  for (pthread_t t : ended) ::pthread_join(t, nullptr);
}

}  // namespace ray::net

// What NNG's copy calls instead of the C library's functions.
extern "C" {

int ray_nng_pthread_create(pthread_t* out, const pthread_attr_t* attributes, void* (*run)(void*),
                           void* argument) {
  ray::net::Park& park = ray::net::park();
  {
    std::lock_guard lock(park.mutex);
    if (!park.waiting.empty()) {
      ray::net::Parked* p = park.waiting.back();
      park.waiting.pop_back();
      p->run = run;
      p->argument = argument;
      p->released = true;
      *out = p->thread;
      park.released.notify_all();
      return 0;
    }
  }
  return ::pthread_create(out, attributes, run, argument);
}

// More threads than for two processors would only wait: one commits, and a frame takes
// microseconds.
long ray_nng_sysconf(int name) {
  long n = ::sysconf(name);
#ifdef LIBRAY_NNG_REDIRECTED
  if (name == _SC_NPROCESSORS_ONLN) return std::min(n, ray::net::kMaxCpus);
#endif
  return n;
}
}
