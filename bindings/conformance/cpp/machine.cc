// machine.cc -- text, values, slots, answers and the loop of a machine. See machine.h.
#include "machine.h"

#include <unistd.h>

#include <cstring>

// ---- text

namespace {

// The instructions of a program: words, bodies in brackets as one word.
std::vector<Words> instructions(const std::string& text) {
  std::vector<Words> out(1);
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == ';') out.emplace_back();
    if (c == ';' || c == ' ' || c == '\n') {
      ++at;
    } else if (c == '[') {
      size_t end = at + 1;
      for (int depth = 1; end < text.size() && (depth += text[end] == '['   ? 1
                                                         : text[end] == ']' ? -1
                                                                            : 0) > 0;)
        ++end;
      out.back().push_back(text.substr(at + 1, end - at - 1));
      at = end + 1;
    } else {
      const size_t end = std::min(text.find_first_of(" \n;", at), text.size());
      out.back().push_back(text.substr(at, end - at));
      at = end;
    }
  }
  return out;
}

constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;

std::mutex g_output;

}  // namespace

ray::resources amounts(const std::string& text) {
  ray::resources out;
  for (size_t at = 0; at < text.size();) {
    const size_t colon = text.find(':', at), end = std::min(text.find(',', at), text.size());
    if (colon == std::string::npos) break;
    out[text.substr(at, colon - at)] = std::stod(text.substr(colon + 1, end - colon - 1));
    at = end + 1;
  }
  return out;
}

// ---- values

bool is_cross() {
  static const bool known = std::getenv("CONFORMANCE_CROSS") != nullptr;
  return known;
}
bool planted(const std::string& kind) {
  const char* plant = std::getenv("CONFORMANCE_PLANT");
  return plant && (kind == plant || kind + "@cpp" == plant);
}

uint64_t mix(uint64_t acc, uint64_t x) { return acc * 6364136223846793005ull + x + 1; }

bool Value::whole() const {
  const size_t n = size / 8;
  const bool as_array = tag % 3 == 0;
  if (as_array ? array.size() != n || !pattern.empty() : pattern.size() != 8 * n || !array.empty())
    return false;
  for (size_t i = 0; i < n; ++i) {
    uint64_t word;
    std::memcpy(&word, as_array ? reinterpret_cast<const char*>(&array[i]) : &pattern[8 * i], 8);
    if (word != (tag + i) * kStep) return false;
  }
  return true;
}

// "TAG:SIZE[:r1,a2]", with `mixed` instead of the tag. The array of a tag that is 4 modulo 5 is
// made in shared memory.
bool Machine::make(const std::string& text, const uint64_t* mixed, Value* out) {
  const size_t first = text.find(':'), second = text.find(':', first + 1);
  if (first == std::string::npos) return false;
  const uint64_t written = std::stoull(text.substr(0, first));
  out->tag = mixed ? *mixed : written;
  out->size = std::stoull(text.substr(first + 1, second - first - 1));
  for (size_t at = second; at != std::string::npos; at = text.find(',', at + 1)) {
    const std::string word = text.substr(at + 1, text.find(',', at + 1) - at - 1);
    Inside in;
    if (Ref* r = ref(word))
      in.ref = *r;
    else if (Actor* a = actor(word))
      in.actor = *a;
    else
      return false;
    out->inside.push_back(std::move(in));
  }
  if (!out->inside.empty() && out->tag % 7 == 0 && planted("lost")) out->inside.pop_back();
  const size_t n = out->size / 8;
  const bool wrong = out->tag % 7 == 0 && planted("value");
  auto word = [&](size_t i) { return wrong && i + 1 == n ? 7 : (out->tag + i) * kStep; };
  if (out->tag % 3 == 0 && written % 5 == 4) {
    ray::array_builder<int64_t> b(n);
    for (size_t i = 0; i < n; ++i) b[i] = static_cast<int64_t>(word(i));
    out->array = b.seal().get();
    return true;
  }
  std::vector<int64_t> words(n);
  for (size_t i = 0; i < n; ++i) words[i] = static_cast<int64_t>(word(i));
  if (out->tag % 3 == 0) {
    auto kept = std::make_shared<const std::vector<int64_t>>(std::move(words));
    out->array = ray::array<int64_t>(kept->data(), {n}, kept);
  } else {
    const char* bytes = reinterpret_cast<const char*>(words.data());
    out->pattern.assign(bytes, bytes + 8 * n);
  }
  return true;
}

void Machine::take(const Value& v, const std::string& index, const std::string& word) {
  const size_t i = std::stoul(index);
  if (i >= v.inside.size())
    return code(ray::failure(RAY_INVALID_ARGUMENT, "nothing inside at " + index));
  const Inside& in = v.inside[i];
  if (word[0] == 'a' ? !in.actor : !in.ref)
    return code(ray::failure(RAY_INVALID_ARGUMENT, "another kind at " + index));
  if (word[0] == 'a')
    set(actors_, word, *in.actor);
  else
    set(refs_, word, *in.ref);
  say("ok");
}

// ---- answers

void print_line(const std::string& line) {
  std::lock_guard<std::mutex> lock(g_output);
  const std::string text = line + "\n";
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(1, text.data() + done, text.size() - done);
    if (n <= 0) ::_exit(3);
    done += static_cast<size_t>(n);
  }
}

bool ask_tester(const std::string& kind, const std::string& n) {
  static std::mutex asking;
  std::lock_guard<std::mutex> lock(asking);
  print_line("f " + kind + " " + n);
  char reply[64] = "";
  if (!std::fgets(reply, sizeof reply, stdin)) ::_exit(3);
  return std::strncmp(reply, "ok", 2) == 0;
}

void Machine::say(const std::string& text) {
  if (is_driver) print_line("a " + path + " " + text);
}

void Machine::empty() {
  if (is_driver) return say("empty");
  code(ray::failure(RAY_NOT_FOUND, "an empty slot"));
}

// A driver prints it; a body ends with it.
void Machine::code(const ray::failure& f) {
  std::string text = f.message().substr(0, 400);
  for (char& c : text)
    if (c == '\n') c = ' ';
  if (!f) return say("ok");
  if (is_driver)
    return say(f.code() == RAY_TIMED_OUT ? "t" : std::string("e ") + (f.name() + 4) + " # " + text);
  if (ray::this_task::is_cancelled()) throw ray::cancelled(ray::failure(RAY_CANCELLED, text));
  throw Failed("body " + path + ": " + f.name() + " " + text);
}

bool Machine::good(const ray::failure& f, bool had_to_come) {
  if (!f) return true;
  if (had_to_come && is_driver && f.code() == RAY_TIMED_OUT) gave_up = true;
  code(f);
  return false;
}

void Machine::tell(const std::optional<Value>& v) {
  acc_ = mix(acc_, v ? v->seen() : 1);
  if (!v) return say("nil");
  const std::string numbers = std::to_string(v->tag) + " " + std::to_string(v->size) + " ";
  if (v->whole()) return say("v " + numbers + std::to_string(v->inside.size()));
  say("damaged " + numbers + std::to_string(v->pattern.size() + v->array.size()));
}

// An instruction of a body that lacks what it needs.
void Machine::need(bool there) const {
  if (!there) throw Failed("body " + path + ": RAY_INVALID_ARGUMENT");
}

// ---- the loop

Machine::~Machine() {
  for (auto& [n, child] : children_)
    if (child.thread.joinable()) child.thread.join();
  for (auto& [slot, group] : groups_) (void)group.remove_result();  // of one that gave up
}

void Machine::run(const std::string& text, const std::string& under) {
  size_t index = 0;
  for (const Words& w : instructions(text)) {
    if (gave_up) return;
    if (w.empty() || std::isdigit(static_cast<unsigned char>(w[0][0])))  // how many results a body has
      continue;
    path = under + std::to_string(index++);
    auto found = operations().find(w[0]);
    if (found != operations().end())
      perform(found->second, w);
    else if (is_driver)
      say("unknown " + w[0]);
    else
      code(ray::failure(RAY_UNSUPPORTED, "unknown " + w[0]));
  }
}

// What throws instead of giving a result, such as the making of an actor without a node, is told like any error.
void Machine::perform(Operation operation, const Words& w) {
  if (!is_driver) return (this->*operation)(w);
  try {
    (this->*operation)(w);
  } catch (const ray::error& e) {
    code(ray::failure(e.code(), e.what()));
  }
}

const std::map<std::string, Machine::Operation>& Machine::operations() {
  static const std::map<std::string, Operation> table = {
      {"put", &Machine::put},
      {"get", &Machine::get},
      {"try", &Machine::try_get},
      {"wait", &Machine::wait},
      {"told", &Machine::told},
      {"elem", &Machine::elem},
      {"copy", &Machine::copy},
      {"drop", &Machine::drop},
      {"task", &Machine::task},
      {"stream", &Machine::stream_task},
      {"call", &Machine::call_actor},
      {"callstream", &Machine::call_stream},
      {"actor", &Machine::make_actor},
      {"next", &Machine::next},
      {"scancel", &Machine::stream_cancel},
      {"sdone", &Machine::stream_done},
      {"cancel", &Machine::cancel},
      {"find", &Machine::find_actor},
      {"kill", &Machine::kill},
      {"sleep", &Machine::sleep},
      {"spin", &Machine::spin},
      {"pump", &Machine::pump},
      {"group", &Machine::group},
      {"gwait", &Machine::group_wait},
      {"gremove", &Machine::group_remove},
      {"kvput", &Machine::kv_put},
      {"kvget", &Machine::kv_get},
      {"kvdel", &Machine::kv_delete},
      {"thread", &Machine::thread},
      {"spawn", &Machine::spawn},
      {"join", &Machine::join},
      {"fork", &Machine::fork},
      {"driver", &Machine::driver},
      {"fault", &Machine::fault},
      {"arg", &Machine::arg},
      {"argx", &Machine::arg_inside},
      {"ret", &Machine::ret},
      {"rets", &Machine::ret_sum},
      {"reterr", &Machine::ret_error},
      {"yield", &Machine::yield},
      {"fail", &Machine::fail},
      {"crash", &Machine::crash},
      {"exit", &Machine::exit},
      {"hold", &Machine::hold},
      {"add", &Machine::add},
      {"keep", &Machine::keep},
      {"kept", &Machine::kept},
  };
  return table;
}
