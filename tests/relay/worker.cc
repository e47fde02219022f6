// The functions that the tests of the relay run, in workers of whichever node. Values are bytes (RAY_FMT_RAW).
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "ray.h"

namespace {

ray_runtime* g_runtime = nullptr;

// Null: there are not so many.
const ray_buffer* buffer(ray_task* task, size_t i) {
  const ray_buffer* all = nullptr;
  return i < ray_task_args(task, &all) ? &all[i] : nullptr;
}

std::string text_of(const ray_buffer& b) { return std::string(static_cast<const char*>(b.data), b.size); }

std::string arg(ray_task* task, size_t i) {
  const ray_buffer* b = buffer(task, i);
  return b ? text_of(*b) : std::string();
}

ray_code give(ray_task* task, const std::string& text, uint32_t index = 0) {
  const ray_value v = ray_plain(text.data(), text.size(), RAY_FMT_RAW);
  return ray_task_return(task, index, &v, nullptr);
}

void touch(const std::string& path) {
  std::ofstream(path + ".tmp") << getpid();
  (void)std::rename((path + ".tmp").c_str(), path.c_str());
}
bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

ray_code add(ray_task* task, void*) {
  return give(task, std::to_string(std::atoll(arg(task, 0).c_str()) + std::atoll(arg(task, 1).c_str())));
}

// The sum of an argument's bytes, and its size; then of its buffers.
ray_code sum(ray_task* task, void*) {
  const ray_buffer* b = buffer(task, 0);
  if (!b) return RAY_TASK_FAILED;
  auto of = [](const void* data, size_t size) {
    uint64_t n = 0;
    for (size_t i = 0; i < size; ++i) n += static_cast<const uint8_t*>(data)[i];
    return std::to_string(size) + ":" + std::to_string(n);
  };
  std::string text = of(b->data, b->size);
  for (size_t i = 0; i < b->n_oob; ++i) text += "," + of(b->oob[i].data, b->oob[i].size);
  return give(task, text);
}

// Its arguments, one result each.
ray_code echo(ray_task* task, void*) {
  for (uint32_t i = 0; i < 3; ++i) {
    const ray_buffer* b = buffer(task, i);
    if (!b) break;
    ray_value v = ray_plain(b->data, b->size, b->format);
    v.oob = b->oob;
    v.n_oob = b->n_oob;
    if (ray_code code = ray_task_return(task, i, &v, nullptr); code != RAY_OK) return code;
  }
  return RAY_OK;
}

ray_code context(ray_task* task, void*) {
  ray_context c = RAY_CONTEXT_INIT;
  if (ray_runtime_context(g_runtime, &c, nullptr) != RAY_OK) return RAY_TASK_FAILED;
  char job[2 * RAY_ID_SIZE + 1], id[2 * RAY_ID_SIZE + 1], node[2 * RAY_ID_SIZE + 1];
  ray_id_to_hex(&c.job, job);
  ray_id_to_hex(&c.task, id);
  ray_id_to_hex(&c.node, node);
  return give(task, std::string(job) + " " + id + " " + node);
}

ray_code fail(ray_task* task, void*) {
  const std::string payload(static_cast<size_t>(std::atoll(arg(task, 0).c_str())), 'p');
  const ray_value v = ray_plain(payload.data(), payload.size(), RAY_FMT_RAW);
  (void)ray_task_fail(task, ray_cstr("it does not like it"), &v);
  return RAY_TASK_FAILED;
}

// Says in args[0] that it runs, and waits for args[1], or for its cancellation, unless there is a third.
ray_code await_file(ray_task* task, void*) {
  const std::string mine = arg(task, 0), other = arg(task, 1);
  const bool stubborn = buffer(task, 2) != nullptr;
  touch(mine);
  while (!exists(other)) {
    if (!stubborn && ray_task_is_cancelled(task)) {
      touch(mine + ".cancelled");
      return RAY_CANCELLED;
    }
    ::usleep(1000);
  }
  return give(task, std::to_string(::getpid()));
}

// Dies the first args[1] times, counted in the file args[0].
ray_code die(ray_task* task, void*) {
  const std::string path = arg(task, 0);
  int n = 0;
  std::ifstream(path) >> n;
  std::ofstream(path) << n + 1;
  if (n < std::atoll(arg(task, 1).c_str())) ::_exit(3);
  return give(task, std::to_string(n));
}

ray_code fill(ray_task* task, void*) {
  return give(task, std::string(static_cast<size_t>(std::atoll(arg(task, 0).c_str())), 'f'));
}

ray_function* function(const char* name) {
  ray_function* f = nullptr;
  return ray_function_get(g_runtime, ray_cstr(name), &f, nullptr) == RAY_OK ? f : nullptr;
}

// add(1, 2) by a child; its id, its result.
ray_code nested(ray_task* task, void*) {
  ray_function* f = function("add");
  ray_arg args[2] = {RAY_ARG_INIT, RAY_ARG_INIT};
  args[0].value = ray_plain("1", 1, RAY_FMT_RAW);
  args[1].value = ray_plain("2", 1, RAY_FMT_RAW);
  ray_ref* ref = nullptr;
  ray_code code = ray_submit(g_runtime, f, args, 2, nullptr, &ref, nullptr);
  if (code != RAY_OK) return code;
  ray_buffer b = RAY_BUFFER_INIT;
  code = ray_get(g_runtime, &ref, 1, -1, &b, nullptr);
  const ray_id id = ray_ref_id(ref);
  char hex[2 * RAY_ID_SIZE + 1];
  ray_id_to_hex(&id, hex);
  const std::string text = std::string(hex) + " " + text_of(b);
  ray_buffer_release(&b);
  ray_ref_release(ref);
  ray_function_release(f);
  return code == RAY_OK ? give(task, text) : code;
}

// A value with a reference in it.
ray_code refers(ray_task* task, void*) {
  const ray_value inner = ray_plain("inner", 5, RAY_FMT_RAW);
  ray_ref* ref = nullptr;
  ray_code code = ray_put(g_runtime, &inner, &ref, nullptr);
  if (code != RAY_OK) return code;
  ray_value v = ray_plain("outer", 5, RAY_FMT_RAW);
  v.refs = &ref;
  v.n_refs = 1;
  code = ray_task_return(task, 0, &v, nullptr);
  ray_ref_release(ref);
  return code;
}

// What args[0] refers to.
ray_code follow(ray_task* task, void*) {
  const ray_buffer* b = buffer(task, 0);
  ray_buffer inner = RAY_BUFFER_INIT;
  ray_ref* ref = nullptr;
  if (!b || ray_buffer_ref(b, 0, &ref, nullptr) != RAY_OK) return RAY_TASK_FAILED;
  ray_code code = ray_get(g_runtime, &ref, 1, -1, &inner, nullptr);
  if (code == RAY_OK) code = give(task, text_of(inner));
  ray_buffer_release(&inner);
  ray_ref_release(ref);
  return code;
}

// An error in one place, a value in the other.
ray_code half(ray_task* task, void*) {
  const ray_value payload = ray_plain("pay", 3, RAY_FMT_RAW);
  (void)ray_task_return_error(task, 0, RAY_TASK_FAILED, ray_cstr("the first half"), &payload, nullptr);
  return give(task, "second", 1);
}

ray_code nothing(ray_task*, void*) { return RAY_OK; }

}  // namespace

int main() {
  struct {
    const char* name;
    ray_task_fn fn;
  } const all[] = {{"add", add},     {"sum", sum},         {"echo", echo}, {"context", context}, {"fail", fail},
                   {"await", await_file}, {"die", die},    {"fill", fill}, {"nested", nested},   {"refers", refers},
                   {"follow", follow},    {"half", half},  {"nothing", nothing}};
  for (const auto& f : all) (void)ray_register_function(ray_cstr(f.name), f.fn, nullptr, nullptr);
  if (ray_init(nullptr, &g_runtime, nullptr) != RAY_OK) return 1;
  (void)ray_worker_run(g_runtime, nullptr);
  ray_runtime_release(g_runtime);
  return 0;
}
