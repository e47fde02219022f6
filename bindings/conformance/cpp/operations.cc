// operations.cc -- instructions that a driver and a body share: values, waiting, tasks, streams,
// actors. See machine.h.
#include <algorithm>

#include "machine.h"

void run_function(ray::call& c);
void run_twin(ray::call& c);

namespace {

using Clock = std::chrono::steady_clock;

long number(const std::string& text) { return std::stol(text); }

std::string option(const Words& w, const std::string& name) {
  for (const std::string& word : w)
    if (word.compare(0, name.size() + 1, name + "=") == 0) return word.substr(name.size() + 1);
  return "";
}
std::vector<std::string> split(const std::string& list) {  // "r1,r2" or "-"
  std::vector<std::string> out;
  for (size_t at = 0; list != "-" && at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    out.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return out;
}
ray::cancel_options flags(const std::string& text) {
  return {text.find('f') != std::string::npos, text.find('r') != std::string::npos};
}
// The function or class for an instruction of a program of two languages, by the name that all drivers give it.
ray::named of_any_language(const Words& w, const std::string& name) {
  const std::string language = option(w, "lang");
  if (language == "python") return {ray::language::python, "machine", name};
  if (language == "java" && name == "Box") return {ray::language::java, "Bodies$Box", ""};
  if (language == "java") return {ray::language::java, "Bodies", name};
  return {language == "rust" ? ray::language::rust : ray::language::native, "", name};
}
std::string name_for(size_t results) { return results > 1 ? "run_several" : "run"; }
std::optional<Value> value_of(ray::result<std::optional<Value>>& r) { return std::move(*r); }

}  // namespace

// ---- values

bool Machine::refs_of(const Words& w, size_t from, std::vector<Ref>* out) {
  for (size_t i = from; i < w.size(); ++i) {
    Ref* r = ref(w[i]);
    if (!r) return empty(), false;
    out->push_back(*r);
  }
  return w.size() > from ? true : (empty(), false);
}

void Machine::put(const Words& w) {  // put rD VALUE
  Value v;
  try {
    if (w.size() < 3 || !make(w[2], nullptr, &v)) return empty();
  } catch (const ray::error& e) {  // no room for an array that is built in the store
    return code(e.details());
  }
  ray::result<ray::ref<std::optional<Value>>> done =
      ray::put_result(std::optional<Value>(std::move(v)));
  if (!good(done.error())) return;
  set(refs_, w[1], *done);
  say("ok");
}

void Machine::get(const Words& w) {  // get rS...
  std::vector<Ref> refs;
  if (!refs_of(w, 1, &refs)) return;
  auto got = ray::get_result(refs, bound());
  if (!good(got.error(), true)) return;
  if (refs.size() != 1) say("values " + std::to_string(refs.size()));
  if (got->size() > 1 && planted("order")) std::swap((*got)[0], (*got)[1]);
  for (const std::optional<Value>& v : *got) tell(v);
}

void Machine::try_get(const Words& w) {  // try rS
  Ref* r = w.size() > 1 ? ref(w[1]) : nullptr;
  if (!r) return empty();
  std::optional<std::optional<Value>> got;
  try {
    got = r->try_get();
  } catch (const ray::error& e) {
    return code(e.details());
  }
  if (got) return tell(*got);
  say("t");
}

void Machine::wait(const Words& w) {  // wait WANT MS rS...
  std::vector<Ref> refs;
  if (w.size() < 4) return empty();
  if (!refs_of(w, 3, &refs)) return;
  const long want = number(w[1]), ms = number(w[2]);
  auto done = ray::wait_result(refs, {static_cast<size_t>(want), limit(ms)});
  if (!good(done.error())) return;
  const size_t count = done->ready.size();
  if (is_driver && ms < 0 && count < static_cast<size_t>(want)) gave_up = true;
  std::string mask;
  size_t at = 0;  // the ready ones are in the order of the input
  for (const Ref& r : refs) {
    const bool ready = at < count && done->ready[at].raw() == r.raw();
    at += ready;
    mask += ready ? '1' : '0';
  }
  say("w " + std::to_string(count) + " " + mask);
}

void Machine::told(const Words& w) {  // told rS...: by an event loop
  std::vector<Ref> refs;
  if (!refs_of(w, 1, &refs)) return;
  std::vector<ray::failure> codes(refs.size());
  size_t left = refs.size();
  ray::failure trouble;
  try {
    ray::event_loop loop;
    loop.post([&] {
      for (size_t i = 0; i < refs.size(); ++i)
        refs[i].then([&, i](const Ref& r) {
          --left;
          codes[i] = r.as<void>().get_result().error();
        });
    });
    const auto end = Clock::now() + (is_driver ? g_bound : std::chrono::hours(24));
    while (left > 0 && Clock::now() < end) loop.poll(end - Clock::now());
  } catch (const ray::error& e) {
    trouble = e.details();
  }
  if (!trouble && left > 0) trouble = ray::failure(RAY_TIMED_OUT, "not all were told");
  if (!good(trouble, true)) return;
  std::string text = "told";
  for (const ray::failure& f : codes) text += std::string(" ") + (f.name() + 4);
  say(text);
}

void Machine::elem(const Words& w) {  // elem rS I XD
  Ref* r = w.size() > 3 ? ref(w[1]) : nullptr;
  if (!r) return empty();
  auto got = r->get_result(bound());
  if (!good(got.error(), true)) return;
  const std::optional<Value> v = value_of(got);
  if (!v) return code(ray::failure(RAY_INVALID_ARGUMENT, "nil"));
  take(*v, w[2], w[3]);
}

void Machine::copy(const Words& w) {  // copy XD XS
  if (w.size() < 3) return empty();
  if (Ref* r = ref(w[2]))
    set(refs_, w[1], Ref(*r));
  else if (Actor* a = actor(w[2]))
    set(actors_, w[1], Actor(*a));
  else if (Stream* s = stream(w[2]))
    set(streams_, w[1], Stream(*s));
  else
    return empty();
  say("ok");
}

void Machine::drop(const Words& w) {  // drop X...
  for (size_t i = 1; i < w.size(); ++i) {
    if (Ref* r = ref(w[i])) *r = {};
    if (Actor* a = actor(w[i])) *a = {};
    if (Stream* s = stream(w[i])) *s = {};
  }
  say("ok");
}

// ---- submitting

// The words from `from` on: options (with '='), arguments, and last the body, which is argument 0.
Machine::Submission Machine::read_submission(const Words& w, size_t from) {
  Submission s;
  s.options.name = w[1];
  size_t results = from < 5 && w[0] != "actor" ? split(w[from - 1]).size() : 1;
  s.args.emplace_back((is_cross() && results > 1 ? std::to_string(results) + ";" : "") + w.back());
  for (size_t i = from; i + 1 < w.size(); ++i) {
    const std::string& word = w[i];
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals),
                      value = equals == std::string::npos ? "" : word.substr(equals + 1);
    Value v;
    if (key == "retries")
      s.options.max_retries = static_cast<int>(number(value));
    else if (key == "roe")
      s.options.retry_on_error = true;
    else if (key == "window")
      s.options.stream_window = static_cast<uint32_t>(number(value));
    else if (key == "res")
      s.options.resources = amounts(value);
    else if (key == "group" && groups_.count(static_cast<int>(number(value.substr(1)))))
      s.options.place = groups_[static_cast<int>(number(value.substr(1)))].at(
          option(w, "bundle").empty() ? -1 : static_cast<int>(number(option(w, "bundle"))));
    else if (equals != std::string::npos)
      continue;
    else if (Ref* r = ref(word))
      s.args.emplace_back(*r);
    else if (word[0] == 'v' && make(word.substr(1), nullptr, &v))
      s.args.emplace_back(std::optional<Value>(std::move(v)));
    else
      s.right = false;
  }
  return s;
}

void Machine::end_submission(const Submission& s, const std::vector<std::string>& outs,
                             const ray::result<std::vector<Ref>>& done) {
  for (size_t i = 0; i < outs.size() && s.right && done; ++i) set(refs_, outs[i], (*done)[i]);
  if (!s.right) return empty();
  code(done.error());
}
void Machine::end_stream(const Submission& s, const std::string& word,
                         const ray::result<Stream>& done) {
  if (!s.right) return empty();
  if (done) set(streams_, word, *done);
  code(done.error());
}

// An actor of any language in a slot: its methods are called by name.
static Actor of_any_class(const ray::actor_handle<void>& a) { return Actor(ray_actor_retain(a.raw())); }

static const ray::failure kNotSubmitted(RAY_NOT_FOUND, "an empty slot");
using Refs = ray::result<std::vector<Ref>>;
using Items = ray::result<Stream>;

void Machine::task(const Words& w) {  // task LABEL rD,.. OPTIONS ARGS [BODY]
  if (w.size() < 4) return empty();
  const Submission s = read_submission(w, 3);
  const auto outs = split(w[2]);
  auto* f = option(w, "twin").empty() ? run_function : run_twin;
  const auto n = static_cast<uint32_t>(outs.size());
  if (!s.right) return end_submission(s, outs, Refs(kNotSubmitted));
  if (!is_cross())
    return end_submission(s, outs, ray::submit_result<std::optional<Value>>(f, s.args, n, s.options));
  const auto which = of_any_language(w, option(w, "twin").empty() ? name_for(n) : "twin");
  end_submission(s, outs, ray::submit_result<std::optional<Value>>(which, s.args, n, s.options));
}

void Machine::stream_task(const Words& w) {  // stream LABEL sD OPTIONS ARGS [BODY]
  if (w.size() < 4) return empty();
  const Submission s = read_submission(w, 3);
  if (!s.right) return end_stream(s, w[2], Items(kNotSubmitted));
  if (!is_cross())
    return end_stream(s, w[2], ray::submit_stream_result<std::optional<Value>>(run_function, s.args, s.options));
  const auto which = of_any_language(w, "run_stream");
  end_stream(s, w[2], ray::submit_stream_result<std::optional<Value>>(which, s.args, s.options));
}

void Machine::call_actor(const Words& w) {  // call LABEL aS rD,.. OPTIONS ARGS [BODY]
  Actor* a = w.size() > 4 ? actor(w[2]) : nullptr;
  if (!a) return empty();
  const Submission s = read_submission(w, 4);
  const auto outs = split(w[3]);
  const auto n = static_cast<uint32_t>(outs.size());
  if (!s.right) return end_submission(s, outs, Refs(kNotSubmitted));
  end_submission(s, outs, is_cross() ? a->submit_result<std::optional<Value>>(name_for(n), s.args, n, s.options)
                                     : a->submit_result<std::optional<Value>>(&Box::run, s.args, n, s.options));
}

void Machine::call_stream(const Words& w) {  // callstream LABEL aS sD OPTIONS ARGS [BODY]
  Actor* a = w.size() > 4 ? actor(w[2]) : nullptr;
  if (!a) return empty();
  const Submission s = read_submission(w, 4);
  if (!s.right) return end_stream(s, w[3], Items(kNotSubmitted));
  end_stream(s, w[3], is_cross() ? a->submit_stream_result<std::optional<Value>>("run_stream", s.args, s.options)
                                 : a->submit_stream_result<std::optional<Value>>(&Box::run, s.args, s.options));
}

void Machine::make_actor(const Words& w) {  // actor LABEL aD OPTIONS ARGS [BODY]
  if (w.size() < 4) return empty();
  const Submission s = read_submission(w, 3);
  if (!s.right) return empty();
  ray::actor_options o;
  auto whole = [&](const char* key, auto& field) {
    if (const std::string text = option(w, key); !text.empty())
      field = static_cast<std::decay_t<decltype(field)>>(number(text));
  };
  o.resources = s.options.resources;
  o.place = s.options.place;
  o.name = option(w, "name");
  whole("restarts", o.max_restarts);
  whole("again", o.max_task_retries);
  whole("conc", o.max_concurrency);
  whole("pending", o.max_pending_calls);
  whole("detached", o.detached);
  whole("ooo", o.out_of_order);
  whole("gie", o.get_if_exists);
  if (is_cross()) {
    auto made = ray::submit_actor_result(of_any_language(w, "Box"), s.args, o);
    if (made) set(actors_, w[2], of_any_class(*made));
    return code(made.error());
  }
  auto made = ray::submit_actor_result<Box>(s.args, o);
  if (made) set(actors_, w[2], *made);
  code(made.error());
}

// ---- streams, cancelling, actors

void Machine::next(const Words& w) {  // next sS rD MS
  Stream* s = w.size() > 3 ? stream(w[1]) : nullptr;
  if (!s) return empty();
  const long ms = number(w[3]);
  auto item = s->next_ref_result(limit(ms));
  if (!good(item.error(), ms < 0)) return;
  if (!*item) {
    acc_ = mix(acc_, 7);
    set(refs_, w[2], Ref());
    return say("end");
  }
  set(refs_, w[2], **item);
  say("ok");
}

void Machine::stream_cancel(const Words& w) {  // scancel sS FLAGS
  Stream* s = w.size() > 2 ? stream(w[1]) : nullptr;
  if (!s) return empty();
  code(s->cancel_result(flags(w[2])).error());
}

void Machine::stream_done(const Words& w) {  // sdone sS rD
  Stream* s = w.size() > 2 ? stream(w[1]) : nullptr;
  if (!s) return empty();
  auto done = s->completed_result();
  if (done) set(refs_, w[2], done->as<std::optional<Value>>());
  code(done.error());
}

void Machine::cancel(const Words& w) {  // cancel rS FLAGS
  Ref* r = w.size() > 2 ? ref(w[1]) : nullptr;
  if (!r) return empty();
  code(r->cancel_result(flags(w[2])).error());
}

void Machine::find_actor(const Words& w) {  // find NAME aD
  if (w.size() < 3) return empty();
  if (is_cross()) {
    auto found = ray::find_actor_result<void>(w[1]);
    set(actors_, w[2], found ? of_any_class(*found) : Actor());
    return code(found.error());
  }
  auto found = ray::find_actor_result<Box>(w[1]);
  set(actors_, w[2], found ? *found : Actor());
  code(found.error());
}

void Machine::kill(const Words& w) {  // kill aS MAY_RESTART
  Actor* a = w.size() > 2 ? actor(w[1]) : nullptr;
  if (!a) return empty();
  code(a->kill_result(w[2] == "1").error());
}

// ---- time

void Machine::sleep(const Words& w) {  // sleep US
  std::this_thread::sleep_for(std::chrono::microseconds(w.size() > 1 ? number(w[1]) : 0));
  say("ok");
}

void Machine::spin(const Words& w) {  // spin US
  const auto end = Clock::now() + std::chrono::microseconds(w.size() > 1 ? number(w[1]) : 0);
  while (Clock::now() < end) continue;
  say("ok");
}

void Machine::pump(const Words& w) {  // pump LABEL rS MS W OPTIONS [BODY]
  Ref* r = w.size() > 5 ? ref(w[2]) : nullptr;
  if (!r) return empty();
  const auto end = Clock::now() + std::chrono::milliseconds(number(w[3]));
  std::vector<std::vector<Ref>> window(static_cast<size_t>(std::max(1l, number(w[4]) % 32)));
  const Submission s = read_submission(w, 5);
  bool ready = false;
  for (size_t i = 0; Clock::now() < end && !ready; ++i) {
    std::vector<Ref>& place = window[i % window.size()];
    for (const Ref& before : place) (void)before.get_result(g_bound);
    place.clear();
    auto submitted = is_cross() ? ray::submit_result<std::optional<Value>>(of_any_language(w, "run"), s.args, 1, s.options)
                                : ray::submit_result<std::optional<Value>>(run_function, s.args, 1, s.options);
    if (!submitted) break;
    place = *submitted;
    auto waited = ray::wait_result(std::vector<Ref>{*r}, {1, std::chrono::seconds(0)});
    if (!waited) break;
    ready = !waited->ready.empty();
  }
  say(ready ? "y" : "n");
}
