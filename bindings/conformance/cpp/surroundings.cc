// surroundings.cc -- instructions about what is around a task: groups, key-value, threads,
// processes. See machine.h.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "machine.h"

// ---- placement groups

void Machine::group(const Words& w) {  // group gD STRATEGY CPU:1,x:2/CPU:1
  if (w.size() < 4) return code(ray::failure(RAY_NOT_FOUND, "no slot"));
  std::vector<ray::resources> bundles;
  for (size_t at = 0; at <= w[3].size();) {
    const size_t end = std::min(w[3].find('/', at), w[3].size());
    bundles.push_back(amounts(w[3].substr(at, end - at)));
    at = end + 1;
  }
  ray::group_options o;
  o.strategy = static_cast<ray::strategy>(std::stoi(w[2]));
  auto made = ray::make_group_result(bundles, o);
  const int slot = std::stoi(w[1].substr(1));
  groups_.erase(slot);
  if (made) groups_[slot] = *made;
  code(made.error());
}

void Machine::group_wait(const Words& w) {  // gwait gS MS
  auto it = groups_.find(w.size() > 2 ? std::stoi(w[1].substr(1)) : -1);
  if (it == groups_.end()) return code(ray::failure(RAY_NOT_FOUND, "no group"));
  code(it->second.wait_result(std::chrono::milliseconds(std::stol(w[2]))).error());
}

void Machine::group_remove(const Words& w) {  // gremove gS
  auto it = groups_.find(w.size() > 1 ? std::stoi(w[1].substr(1)) : -1);
  if (it == groups_.end()) return code(ray::failure(RAY_NOT_FOUND, "no group"));
  const ray::placement_group g = it->second;
  groups_.erase(it);
  code(g.remove_result().error());
}

// ---- key-value

uint64_t Machine::expected(const Words& w, size_t at) {  // any | none | last
  if (w.size() <= at || w[at][0] == 'a') return ray::kv_any;
  return w[at][0] == 'n' ? 0 : versions_[w[1]];
}

void Machine::kv_put(const Words& w) {  // kvput KEY TAG EXPECTED
  if (w.size() < 4) return code(ray::failure(RAY_NOT_FOUND, "no key"));
  const uint64_t tag = std::stoull(w[2]);
  auto version = ray::kv_put_result(w[1], {reinterpret_cast<const char*>(&tag), sizeof tag},
                                    expected(w, 3), "model");
  if (!good(version.error())) return;
  versions_[w[1]] = *version;
  say("k " + w[2] + " " + std::to_string(*version));
}

void Machine::kv_get(const Words& w) {  // kvget KEY
  if (w.size() < 2) return code(ray::failure(RAY_NOT_FOUND, "no key"));
  auto got = ray::kv_get_result(w[1], "model");
  if (!good(got.error())) return;
  if (!*got) return code(ray::failure(RAY_NOT_FOUND, "no such key"));
  uint64_t tag = 0;
  if ((*got)->value.size() == sizeof tag) std::memcpy(&tag, (*got)->value.data(), sizeof tag);
  versions_[w[1]] = (*got)->version;
  acc_ = mix(acc_, tag);
  say("k " + std::to_string(tag) + " " + std::to_string((*got)->version));
}

void Machine::kv_delete(const Words& w) {  // kvdel KEY EXPECTED
  if (w.size() < 3) return code(ray::failure(RAY_NOT_FOUND, "no key"));
  code(ray::kv_erase_result(w[1], expected(w, 2), "model").error());
}

// ---- threads

void Machine::thread(const Words& w) {  // thread [BODY]: in a new thread, until it has ended
  if (w.size() < 2) return;
  const std::string under = path + ".";
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      run(w[1], under);
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
}

void Machine::spawn(const Words& w) {  // spawn N [BODY]: beside this one, with copies of the slots
  if (w.size() < 3 || children_[std::stol(w[1]) % 8].thread.joinable()) return say("empty");
  Child& c = children_[std::stol(w[1]) % 8];
  c.failed = false;
  c.machine = std::make_unique<Machine>();
  c.machine->is_driver = is_driver;
  c.machine->refs_ = refs_;
  c.machine->actors_ = actors_;
  c.thread = std::thread([&c, text = w[2], under = path + "."] {
    try {
      c.machine->run(text, under);
    } catch (const std::exception&) {
      c.failed = true;
    }
  });
  say("ok");
}

void Machine::join(const Words& w) {  // join N
  Child& c = children_[w.size() > 1 ? std::stol(w[1]) % 8 : 0];
  if (!c.thread.joinable()) return say("empty");
  c.thread.join();
  c.machine.reset();
  if (c.failed && !is_driver)
    return code(ray::failure(RAY_TASK_FAILED, "what ran beside it failed"));
  say("ok");
}

// ---- processes

static std::string ending_of(pid_t pid) {
  int status = 0;
  if (pid < 0) return "x -1";
  while (::waitpid(pid, &status, 0) < 0) continue;
  return "x " + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status));
}

void Machine::fork(const Words& w) {  // fork [BODY]: in a child that then ends without a word
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(30);
    bool failed = false;
    try {
      if (w.size() > 1) run(w[1], path + ".");
    } catch (const std::exception&) {
      failed = true;
    }
    ::_exit(failed ? 1 : 0);
  }
  say(ending_of(pid));
}

void Machine::driver(
    const Words& w) {  // driver clean|leave|die [BODY]: another driver, until it has ended
  if (w.size() < 3) return say("empty");
  const std::string session = ray::session_dir(), under = path + ".";
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::execl(g_program.c_str(), g_program.c_str(), "--join", session.c_str(), w[1].c_str(),
            under.c_str(), w[2].c_str(), nullptr);
    ::_exit(4);
  }
  say(ending_of(pid));
}

int join_main(char** argv) {  // --join SESSION MODE PATH TEXT
  Machine m;
  m.is_driver = true;
  ray::init_options o;
  o.address = argv[2];
  o.ns = "model";
  if (auto started = ray::init_result(o); !started) {
    print_line(std::string("a ") + argv[4] + "join e " + (started.error().name() + 4) + " # " +
               started.error().message());
    return 5;
  }
  m.run(argv[5], argv[4]);
  const std::string mode = argv[3];
  if (mode == "die") ::kill(::getpid(), SIGKILL);
  if (mode == "leave") ::_exit(0);
  return 0;
}

void Machine::fault(const Words& w) {  // fault KIND N
  if (is_driver && w.size() > 2) say(ask_tester(w[1], w[2]) ? "ok" : "no");
}
