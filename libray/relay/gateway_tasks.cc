// See gateway.h: arguments, submission, cancelling. On the gateway's own thread.
#include <algorithm>

#include "libray/base/log.h"
#include "libray/relay/gateway.h"
#include "libray/runtime/runtime.h"
#include "libray/wire/packed.h"
#include "store/client.h"

namespace ray::relay {

// ---- arguments that come in parts: straight into this node's store

void Gateway::open_argument(Lane* l, const Record& r) {
  l->filling = {r.number, r.index};
  Argument& a = l->arguments[l->filling];
  a.value.open(r.value, [this](const ray_value& shape, WriterState* w) {
    return w->open(runtime_, runtime_->next_put_id(), shape);
  });
  seal(&a);
}

void Gateway::fill_argument(Lane* l, const Record& r) {
  auto it = l->arguments.find(l->filling);
  if (it == l->arguments.end()) return;
  Argument& a = it->second;
  if (a.object && !r.bytes.empty()) a.status = error(RAY_INTERNAL, "it has more bytes than were announced");
  if (a.object) return;
  a.value.fill(r.bytes);
  seal(&a);
}

// Once all of it is there.
void Gateway::seal(Argument* a) {
  if (a->object) return;
  a->status = a->value.whole();
  if (!a->status.ok()) return;
  a->status = runtime_->objects().seal_put(a->value.writer(), &a->object);
  if (a->status.ok()) (void)hand_out(a->object);
}

void Gateway::drop_arguments(Lane* l, uint64_t number, bool all) {
  auto it = l->arguments.lower_bound({number, 0});
  while (it != l->arguments.end() && (all || it->first.first == number)) {
    if (it->second.object) runtime_->objects().release_handle(it->second.object);
    it = l->arguments.erase(it);
  }
}

Status Gateway::read_arguments(Lane* l, const Task& t, std::vector<ray_arg>* args,
                               std::vector<std::vector<ray_bytes>>* buffers) {
  buffers->resize(t.args.size());
  for (uint32_t i = 0; i < t.args.size(); ++i) {
    const Value& v = t.args[i];
    ray_arg& a = args->emplace_back(ray_arg RAY_ARG_INIT);
    if (!v.given) return error(RAY_INTERNAL, "argument %u did not come", i);
    if (v.apart) {
      auto it = l->arguments.find({t.number, i});
      if (it == l->arguments.end()) return error(RAY_INTERNAL, "the bytes of argument %u did not come", i);
      const Argument& arg = it->second;
      if (!arg.status.ok()) return error(arg.status.code(), "argument %u: %s", i, arg.status.message().c_str());
      a.ref = arg.object->handle();
      continue;
    }
    a.value = ray_plain(v.data.data(), v.data.size(), v.format);
    for (std::string_view b : v.oob) (*buffers)[i].push_back({b.data(), b.size()});
    a.value.oob = (*buffers)[i].data();
    a.value.n_oob = v.oob.size();
  }
  return Status();
}

// ---- tasks

// False: it breaks the rules of a lane.
bool Gateway::task(Lane* l, const Record& r) {
  const Task& t = r.task;
  const std::string attempt = std::to_string(t.attempt + 1);
  auto known = functions_.find({l->key.first, t.function});
  if (known == functions_.end()) {
    drop_arguments(l, t.number, false);
    Record back;
    back.kind = Kind::kReturned;
    back.number = t.number;
    back.flags = kUnknownFunction;
    back.bytes = "its definition is not there";
    send(l->key, back);
    return true;
  }
  Function* f = known->second.function;
  const std::string name = t.name.empty() && f ? f->name : std::string(t.name);
  const std::string about = "task " + name + " (" + t.id.hex() + ", attempt " + attempt + ")";
  const uint64_t ticket = ++next_ticket_;
  {
    std::lock_guard lock(mutex_);
    if (l->tasks.size() >= kWindowTasks || !l->tasks.emplace(t.number, ticket).second) return false;
    Entry& e = entries_[ticket];
    e.lane = l->key;
    e.number = t.number;
    e.about = about;
  }
  const Status s = f ? submit(l, t, f, ticket) : known->second.status;
  drop_arguments(l, t.number, false);
  Entry over;
  {
    std::lock_guard lock(mutex_);
    Entry& e = entries_.at(ticket);
    e.submitted = true;
    if (s.ok() && !e.is_over) return true;
    over = std::move(e);
    entries_.erase(ticket);
  }
  if (s.ok()) answer(ticket, std::move(over), false);
  else fail(l, t.number, s, about);
  std::lock_guard lock(mutex_);
  pump(l);
  return true;
}

Status Gateway::submit(Lane* l, const Task& t, Function* f, uint64_t ticket) {
  std::vector<ray_arg> args;
  std::vector<std::vector<ray_bytes>> buffers;
  args.reserve(t.args.size());
  RAY_TRY(read_arguments(l, t, &args, &buffers));
  ray_task_options o = RAY_TASK_OPTIONS_INIT;
  o.name = {t.name.data(), t.name.size()};
  o.resources_msgpack = {l->resources.data(), l->resources.size()};
  o.max_retries = 0;
  o.num_returns = t.n_returns;
  RelayedTask as;
  as.number = ticket;
  as.id = t.id;
  as.parent = t.parent;
  as.attempt = t.attempt;
  as.caller = t.caller;
  std::vector<Object*> returns(t.n_returns);
  uint64_t tag = 0;
  RAY_TRY(runtime_->submit_relayed(as, f, args.data(), args.size(), o, returns.data(), &tag));
  std::lock_guard lock(mutex_);
  Entry& e = entries_.at(ticket);
  e.tag = tag;
  e.returns = std::move(returns);
  return Status();
}

void Gateway::fail(Lane* l, uint64_t number, const Status& why, const std::string& about) {
  Outgoing out;
  out.number = number;
  out.fail(why.code(), about + " on " + host_->name_of(runtime_->node()) + ": " + why.message(), 0);
  send_out(l->key, std::move(out));
}

void Gateway::cancel(Lane* l, const Record& r) {
  uint64_t tag = 0;
  {
    std::lock_guard lock(mutex_);
    auto it = l->tasks.find(r.number);
    if (it == l->tasks.end()) return;
    auto e = entries_.find(it->second);
    if (e == entries_.end()) return;  // its answer is on its way
    tag = e->second.tag;
  }
  runtime_->cancel_relayed(tag, r.flags & (RAY_CANCEL_FORCE | RAY_CANCEL_RECURSIVE));
}

void Gateway::recall(Lane* l) {
  std::vector<uint64_t> tags;
  {
    std::lock_guard lock(mutex_);
    for (auto& [number, ticket] : l->tasks)
      if (auto e = entries_.find(ticket); e != entries_.end()) tags.push_back(e->second.tag);
  }
  for (uint64_t tag : tags) runtime_->recall(tag);
}

}  // namespace ray::relay
