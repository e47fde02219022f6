// body.cc -- instructions of tasks and calls alone, and the functions that run them. See machine.h.
#include <unistd.h>

#include <csignal>

#include "machine.h"

namespace {
// What a body is given as its I-th argument: argument 0 is the body itself.
size_t argument(const std::string& word) { return std::stoul(word) + 1; }
}  // namespace

void Machine::arg(const Words& w) {  // arg I
  need(call && w.size() > 1 && argument(w[1]) < call->size());
  const auto v = call->arg<std::optional<Value>>(argument(w[1]));
  acc_ = mix(acc_, v ? v->seen() : 1);
}

void Machine::arg_inside(const Words& w) {  // argx I J XD
  need(call && w.size() > 3 && argument(w[1]) < call->size());
  const auto v = call->arg<std::optional<Value>>(argument(w[1]));
  need(v.has_value());
  take(*v, w[2], w[3]);
}

// The tag of a returned value tells what the body saw, and with "a" also which attempt it was.
uint64_t Machine::mixed_tag(const Words& w, size_t at) const {
  const uint64_t tag = mix(acc_, std::stoull(w[at]));
  return w.size() > at + 1 && w[at + 1][0] == 'a' ? mix(tag, 1000 + attempt) : tag;
}

void Machine::ret(const Words& w) {  // ret I VALUE [a]
  need(call && w.size() > 2);
  const uint64_t tag = mixed_tag(w, 2);
  Value v;
  need(make(w[2], &tag, &v));
  call->give(static_cast<uint32_t>(std::stoul(w[1])), std::optional<Value>(std::move(v)));
}

void Machine::ret_sum(const Words& w) {  // rets I: the actor's sum
  need(call && box && w.size() > 1);
  Value v;
  {
    std::lock_guard<std::mutex> lock(box->mutex);
    v.tag = box->sum;
  }
  call->give(static_cast<uint32_t>(std::stoul(w[1])), std::optional<Value>(std::move(v)));
}

void Machine::ret_error(const Words& w) {  // reterr I
  need(call && w.size() > 1);
  call->give_error(static_cast<uint32_t>(std::stoul(w[1])), "on purpose");
}

void Machine::yield(const Words& w) {  // yield VALUE [a]
  need(call && w.size() > 1);
  const uint64_t tag = mixed_tag(w, 1);
  Value v;
  need(make(w[1], &tag, &v));
  if (!call->yield(std::optional<Value>(std::move(v))))
    throw ray::cancelled(ray::failure(RAY_CANCELLED, "nobody wants more"));
}

void Machine::fail(const Words& w) {  // fail [N]: in the attempts below N, or in all
  if (w.size() < 2 || attempt < std::stoul(w[1])) throw Failed("on purpose");
}

void Machine::crash(const Words& w) {  // crash [N]
  if (w.size() < 2 || attempt < std::stoul(w[1])) ::kill(::getpid(), SIGKILL);
}

void Machine::exit(const Words&) {  // exit: the actor ends after this call
  ray::exit_actor("the program says so");
  throw Left();
}

void Machine::hold(const Words& w) {  // hold US: until it is cancelled, but no longer
  for (long left = w.size() > 1 ? std::stol(w[1]) : 0; left > 0 && !ray::this_task::is_cancelled();
       left -= 500)
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  ray::this_task::check_cancelled();
}

void Machine::add(const Words& w) {  // add N: to the actor's sum, which the body then has seen
  need(box && w.size() > 1);
  std::lock_guard<std::mutex> lock(box->mutex);
  box->sum += std::stoull(w[1]);
  acc_ = mix(acc_, box->sum);
}

void Machine::keep(const Words& w) {  // keep I rS: the actor holds it from now on
  Ref* r = w.size() > 2 ? ref(w[2]) : nullptr;
  need(box && r);
  std::lock_guard<std::mutex> lock(box->mutex);
  box->kept[std::stol(w[1]) & 7] = *r;
}

void Machine::kept(const Words& w) {  // kept I rD
  need(box && w.size() > 2);
  Ref r;
  {
    std::lock_guard<std::mutex> lock(box->mutex);
    r = box->kept[std::stol(w[1]) & 7];
  }
  need(static_cast<bool>(r));
  set(refs_, w[2], std::move(r));
}

// ---- what workers run

static void run_body(ray::call& c, Box* box) {
  Machine m;
  m.call = &c;
  m.box = box;
  m.attempt = ray::this_task::attempt() - 1;
  try {
    m.run(c.size() ? c.arg<std::string>(0) : std::string(), "");
  } catch (const Left&) {
  }
}
void run_function(ray::call& c) { run_body(c, nullptr); }
void run_twin(ray::call& c) { run_body(c, nullptr); }
Box::Box(ray::call& c) { run_body(c, this); }
void Box::run(ray::call& c) { run_body(c, this); }
void Box::run_several(ray::call& c) { run_body(c, this); }
void Box::run_stream(ray::call& c) { run_body(c, this); }
static void run_several(ray::call& c) { run_body(c, nullptr); }
static void run_stream(ray::call& c) { run_body(c, nullptr); }
RAY_REMOTE_AS("run", run_function);
RAY_REMOTE_AS("twin", run_twin);
RAY_REMOTE(run_several, run_stream);
RAY_ACTOR(Box(ray::call&), &Box::run, &Box::run_several, &Box::run_stream);
