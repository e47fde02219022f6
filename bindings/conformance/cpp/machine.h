// machine.h -- the C++ driver of the conformance programs (../SPEC.md), over ray.hpp alone: one
// machine runs one list of instructions, in the driver, in a task, in an actor's call or in a
// thread of any of them.
#pragma once
#include <map>
#include <mutex>
#include <ray.hpp>
#include <thread>

struct Box;
struct Value;
using Ref = ray::ref<std::optional<Value>>;  // a result that was not given is nil
using Actor = ray::actor_handle<Box>;
using Stream = ray::stream<std::optional<Value>>;

// One reference or handle inside of a value.
struct Inside {
  std::optional<Ref> ref;
  std::optional<Actor> actor;
  MSGPACK_DEFINE(ref, actor)
};
// A tag, a size, a pattern that follows from both, and what is inside. The pattern of every third
// tag is an array. That is the form of programs of two languages too.
struct Value {
  uint64_t tag = 0, size = 0;
  std::vector<char> pattern;
  ray::array<int64_t> array;
  std::vector<Inside> inside;
  MSGPACK_DEFINE(tag, size, pattern, array, inside)
  bool whole() const;
  uint64_t seen() const { return whole() ? tag + size : 1; }  // what a body mixes in
};

// An actor: what it keeps between its calls.
struct Box {
  std::mutex mutex;
  uint64_t sum = 0;
  std::map<long, Ref> kept;
  explicit Box(ray::call& c);
  void run(ray::call& c);
  void run_several(ray::call& c);  // the names under which other languages call it
  void run_stream(ray::call& c);
};

using Words =
    std::vector<std::string>;  // one instruction: its words, bodies without their brackets

// Ends a body: the instruction that could not be done says why.
struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct Left {};  // ends a body without a failure: its actor leaves

extern std::chrono::milliseconds g_bound;  // how long a driver waits for what has to come
extern std::string g_program;              // path of this binary

class Machine {
 public:
  bool is_driver = false;  // answers are printed
  ray::call* call = nullptr;
  Box* box = nullptr;
  uint32_t attempt = 0;  // counted from 0
  std::string path;      // of the instruction that runs
  bool gave_up = false;  // what had to come did not: nothing more is run

  Machine() = default;
  ~Machine();
  void run(const std::string& text, const std::string& under);

 private:
  struct Child {
    std::unique_ptr<Machine> machine;
    std::thread thread;
    bool failed = false;
  };
  using Operation = void (Machine::*)(const Words&);
  static const std::map<std::string, Operation>& operations();
  void perform(Operation operation, const Words& w);

  // answers
  void say(const std::string& text);
  void empty();
  void code(const ray::failure& f);
  // Whether it went well; says so if not, and gives up if that answer had to come.
  bool good(const ray::failure& f, bool had_to_come = false);
  void tell(const std::optional<Value>& v);
  ray::timeout bound() const { return is_driver ? ray::timeout(g_bound) : ray::forever; }
  ray::timeout limit(long ms) const {
    return ms < 0 ? bound() : ray::timeout(std::chrono::milliseconds(ms));
  }

  // values and slots
  bool make(const std::string& text, const uint64_t* mixed, Value* out);
  uint64_t mixed_tag(const Words& w, size_t at) const;
  template <class T>
  static T* find(std::map<int, T>& in, const std::string& word, char kind) {
    if (word.size() < 2 || word[0] != kind) return nullptr;
    auto it = in.find(std::stoi(word.substr(1)));
    return it != in.end() && it->second ? &it->second : nullptr;
  }
  Ref* ref(const std::string& word) { return find(refs_, word, 'r'); }
  Actor* actor(const std::string& word) { return find(actors_, word, 'a'); }
  Stream* stream(const std::string& word) { return find(streams_, word, 's'); }
  template <class T>
  static void set(std::map<int, T>& in, const std::string& word, T value) {
    if (word.size() > 1) in[std::stoi(word.substr(1))] = std::move(value);
  }
  void take(const Value& v, const std::string& index, const std::string& word);
  bool refs_of(const Words& w, size_t from, std::vector<Ref>* out);

  // submitting
  struct Submission {
    ray::task_options options;
    std::vector<ray::argument> args;
    bool right = true;
  };
  Submission read_submission(const Words& w, size_t from);
  void end_submission(const Submission& s, const std::vector<std::string>& outs,
                      const ray::result<std::vector<Ref>>& done);
  void end_stream(const Submission& s, const std::string& word, const ray::result<Stream>& done);

  void put(const Words& w);
  void get(const Words& w);
  void try_get(const Words& w);
  void wait(const Words& w);
  void told(const Words& w);
  void elem(const Words& w);
  void copy(const Words& w);
  void drop(const Words& w);
  void task(const Words& w);
  void stream_task(const Words& w);
  void call_actor(const Words& w);
  void call_stream(const Words& w);
  void make_actor(const Words& w);
  void next(const Words& w);
  void stream_cancel(const Words& w);
  void stream_done(const Words& w);
  void cancel(const Words& w);
  void find_actor(const Words& w);
  void kill(const Words& w);
  void sleep(const Words& w);
  void spin(const Words& w);
  void pump(const Words& w);
  void group(const Words& w);
  void group_wait(const Words& w);
  void group_remove(const Words& w);
  void kv_put(const Words& w);
  void kv_get(const Words& w);
  void kv_delete(const Words& w);
  void thread(const Words& w);
  void spawn(const Words& w);
  void join(const Words& w);
  void fork(const Words& w);
  void driver(const Words& w);
  void fault(const Words& w);
  // of bodies alone
  void arg(const Words& w);
  void arg_inside(const Words& w);
  void ret(const Words& w);
  void ret_sum(const Words& w);
  void ret_error(const Words& w);
  void yield(const Words& w);
  void fail(const Words& w);
  void crash(const Words& w);
  void exit(const Words& w);
  void hold(const Words& w);
  void add(const Words& w);
  void keep(const Words& w);
  void kept(const Words& w);
  uint64_t expected(const Words& w, size_t at);
  void need(bool there) const;

  uint64_t acc_ = 0;
  std::map<int, Ref> refs_;
  std::map<int, Actor> actors_;
  std::map<int, Stream> streams_;
  std::map<int, ray::placement_group> groups_;
  std::map<std::string, uint64_t> versions_;
  std::map<long, Child> children_;
};

uint64_t mix(uint64_t acc, uint64_t x);
bool is_cross();                        // CONFORMANCE_CROSS: programs of two languages
bool planted(const std::string& kind);  // CONFORMANCE_PLANT: a fault that the tester has to find
ray::resources amounts(const std::string& text);
// One line in one write: other drivers share the descriptor.
void print_line(const std::string& line);
bool ask_tester(const std::string& kind, const std::string& n);
int join_main(char** argv);  // --join SESSION MODE PATH TEXT
