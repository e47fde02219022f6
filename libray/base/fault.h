// Fault points: named places in production code where a test can ask for a failure.
//
//   RAY_FAULT("store.put.after_copy");                 // may kill, delay or stop the process here
//   if (RAY_FAULT_FAILS("gcs.journal.commit")) return …; // may also ask for an error
//
// Armed by ray_test_fault or by LIBRAY_FAULTS="point=action;…" in the environment. Actions:
//   kill | stop | delay:5ms | fail | each with an optional "@N" (only the N-th passage; default 1,
//   "@0" = every passage). LIBRAY_FAULT_ONCE=DIR: each point acts once among all processes that
//   share the directory, and leaves the pid of the one in DIR/point.
// Cost when nothing is armed: one relaxed load of one word.
#pragma once
#include <atomic>
#include <string>

namespace ray {

extern std::atomic<bool> g_faults_armed;
bool fault_hit(const char* point);  // true = the caller is asked to fail
// Empty action disarms. False when the action cannot be parsed.
bool set_fault(const std::string& point, const std::string& action);
void load_faults_from_environment();

#define RAY_FAULT_FAILS(point)                                                   \
  (__builtin_expect(::ray::g_faults_armed.load(std::memory_order_relaxed), 0) && \
   ::ray::fault_hit(point))
#define RAY_FAULT(point) ((void)RAY_FAULT_FAILS(point))

}  // namespace ray
