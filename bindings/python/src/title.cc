// The title of a worker's process, which `ps` shows: "ray::f" or "ray::Actor.method" while that runs,
// "ray::Actor" or "ray::IDLE" while it waits. It is written over the arguments that the kernel shows,
// so a change costs a copy of some bytes and no call into the kernel. The short name of the main
// thread, which `top` shows, needs such a call: it changes only when the process becomes an actor.
// Called by the main thread's loop (worker.cc) around each task, with the GIL.
#include "title.h"

#include <sys/prctl.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace libray_py {
namespace {

char* g_room = nullptr;  // the arguments of this process; null: they cannot be written
size_t g_size = 0;       // how many bytes they have
size_t g_used = 0;       // those that are not zero begin with so many

std::string g_idle = "ray::IDLE";
bool g_shows_task = false;

// The task that the title tells of.
uint64_t g_key = 0;
uint32_t g_kind = 0;
std::string g_name, g_method;

bool equal(const std::string& a, ray_str b) {
  return a.size() == b.size && memcmp(a.data(), b.data, b.size) == 0;
}

void show(const char* text, size_t size) {
  size = std::min(size, g_size - 1);  // the kernel wants a zero at the end
  memcpy(g_room, text, size);
  if (size < g_used) memset(g_room + size, 0, g_used - size);
  g_used = size;
}

// The last part of a dotted name: the function's or the class's own.
std::string last_of(ray_str dotted) {
  const std::string name(dotted.data, dotted.size);
  return name.substr(name.rfind('.') + 1);
}

std::string title_of(const ray_task_info& info) {
  const std::string name(info.name.data, info.name.size);
  if (name != std::string(info.function.data, info.function.size)) return "ray::" + name;
  std::string title = "ray::" + last_of(info.function);
  if (info.kind == RAY_KIND_ACTOR_CALL)
    title.append(".").append(info.method.data, info.method.size);
  if (info.kind == RAY_KIND_ACTOR_CREATE) title += ".__init__";
  return title;
}

std::string g_title;         // of that task
bool g_user_named = false;  // the user's code changed title and name

}  // namespace

void prepare_title(const char* begin, const char* end) {
  prctl(PR_SET_NAME, g_idle.c_str());
  if (end - begin < 16 || end[-1] != 0) return;
  g_room = const_cast<char*>(begin);
  g_size = g_used = static_cast<size_t>(end - begin);
  show(g_idle.data(), g_idle.size());
}

void title_task(const ray_task_info& info) {
  if (g_room == nullptr) return;
  if (info.function_key != g_key || info.kind != g_kind || !equal(g_name, info.name) ||
      !equal(g_method, info.method)) {
    g_key = info.function_key;
    g_kind = info.kind;
    g_name.assign(info.name.data, info.name.size);
    g_method.assign(info.method.data, info.method.size);
    g_title = title_of(info);
    if (info.kind == RAY_KIND_ACTOR_CREATE) {
      g_idle = "ray::" + last_of(info.function);
      prctl(PR_SET_NAME, g_idle.c_str());  // the kernel keeps 15 bytes
    }
  } else if (g_shows_task) {
    return;
  }
  g_shows_task = true;
  show(g_title.data(), g_title.size());
}

void title_idle() {
  if (!g_shows_task) return;
  g_shows_task = false;
  if (g_user_named) prctl(PR_SET_NAME, g_idle.c_str());
  g_user_named = false;
  show(g_idle.data(), g_idle.size());
}

PyObject* title_set(PyObject*, PyObject* title) {
  Py_ssize_t size;
  const char* text = PyUnicode_AsUTF8AndSize(title, &size);
  if (text == nullptr) return nullptr;
  prctl(PR_SET_NAME, text);
  if (g_room != nullptr) {
    g_kind = UINT32_MAX;  // no task's: the next one writes its own, and its end the idle one
    g_shows_task = g_user_named = true;
    show(text, static_cast<size_t>(size));
  }
  Py_RETURN_NONE;
}

PyObject* title_get(PyObject*, PyObject*) {
  return PyUnicode_DecodeUTF8(g_room, g_room == nullptr ? 0 : static_cast<Py_ssize_t>(g_used),
                              "replace");
}

}  // namespace libray_py
