// See node_core.h. Definitions of functions: usable at once on this node; the control store gets them behind the answer's
// back, and forgets them when nobody needs them. Requests to it may overtake each other, so of a key there are either
// definitions under way or one order to forget it, never both.
#include "libray/node/core/node_core.h"
#include "libray/wire/cursor.h"

namespace ray::node {

void NodeCore::on(const event::Ping& e) {
  if (late_.kills() == 0) return reply(e.process, e.req_id, RAY_OK, wire::empty_array());
  // A kill that its sender has just written is among these: the answer says that it was carried out.
  late_.add({.kind = Late::kPong, .process = e.process, .req_id = e.req_id});
}

void NodeCore::on(event::FunctionDefine& e) {
  if (const std::string* known = functions_.find(e.key)) {
    const bool same = *known == e.value;
    if (same) function_users_.define(e.process, e.key);
    return reply(e.process, e.req_id, same ? RAY_OK : RAY_CONFLICT,
                 same ? wire::empty_array() : "another function has this key");
  }
  function_users_.define(e.process, e.key);
  uint32_t waits = e.process;
  if (functions_.add(e.key, std::move(e.value))) {
    reply(e.process, e.req_id, RAY_OK, wire::empty_array());
    waits = kNone;  // answered
  }
  if (auto it = forgetting_.find(e.key); it != forgetting_.end())
    return it->second.push_back({std::move(e.body), waits, e.req_id});
  store_function(e.key, std::move(e.body), waits, e.req_id);
}

// `process`: who waits for the answer, if anybody.
void NodeCore::store_function(uint64_t key, std::string body, uint32_t process, uint64_t req_id) {
  ++storing_[key];
  put(action::StoreFunction{key, std::move(body), process, req_id});
}

void NodeCore::on(const event::FunctionStored& e) {
  if (e.code == RAY_OK) functions_.stored(e.key);
  if (e.process != kNone) reply(e.process, e.req_id, e.code, e.answer);
  if (--storing_[e.key] == 0) storing_.erase(e.key);
  if (!function_users_.used(e.key)) forget_function(e.key);
}

// Nobody needs its definition any more.
void NodeCore::forget_function(uint64_t key) {
  if (storing_.count(key) || forgetting_.count(key)) return;
  functions_.erase(key);
  forgetting_[key];
  put(action::ForgetFunction{key});
}

void NodeCore::on(const event::FunctionForgotten& e) {
  auto again = forgetting_.extract(e.key);
  if (again.empty()) return;
  for (Definition& d : again.mapped()) store_function(e.key, std::move(d.body), d.process, d.req_id);
}

void NodeCore::on(const event::FunctionDrop& e) {
  if (function_users_.drop(e.process, e.key, e.count)) forget_function(e.key);
}

// Who gave it the task may have defined the function in a ring that this pass had gone by already.
void NodeCore::on(const event::FunctionGet& e) {
  if (const std::string* known = functions_.find(e.key)) return reply(e.process, e.req_id, RAY_OK, *known);
  late_.add({.kind = Late::kFunction, .process = e.process, .req_id = e.req_id, .key = e.key});
}

void NodeCore::function_late(const Late& work) {
  if (const std::string* known = functions_.find(work.key)) return reply(work.process, work.req_id, RAY_OK, *known);
  put(action::AskFunction{work.key, work.process, work.req_id});
}

std::string NodeCore::check_functions() const {
  for (const auto& [key, n] : storing_)
    if (n == 0 || forgetting_.count(key)) return "a definition is stored and forgotten at the same time";
  for (const auto& [id, key] : actor_functions_)
    if (!function_users_.used(key)) return "the class of an actor that may start is used by nobody";
  return "";
}

}  // namespace ray::node
