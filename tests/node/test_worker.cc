// A worker that speaks the protocol by hand. What a task does is its `function`:
//   1 answer at once · 2 say "blocked", answer when a file "go" appears in the session directory ·
//   3 crash · 4 write garbage into the up ring · 5 never answer · 6 exit(7)
#include <cstdlib>
#include <filesystem>

#include "libray/node/session.h"
#include "raw_client.h"

using namespace ray;

namespace {

struct Worker {
  test::RawClient c;
  std::string session;
  ActorId actor;

  void done(test::Link* link, uint64_t tag) {
    wire::DoneHeader d{tag, RAY_OK, 0, 1000};
    void* at;
    while (!(at = link->results_out.reserve(wire::kLinkDone, sizeof d))) ::usleep(100);
    std::memcpy(at, &d, sizeof d);
    link->results_out.publish();
    ring(&c.page->bells[link->peer].armed);
  }

  void run(test::Link* link, const wire::TaskHeader& h) {
    switch (h.function) {
      case 1: return done(link, h.tag);
      case 2:
        c.up(wire::kUpBlocked, wire::UpBlocked{1, 0});
        while (!std::filesystem::exists(session + "/go")) ::usleep(500);
        c.up(wire::kUpBlocked, wire::UpBlocked{0, 0});
        return done(link, h.tag);
      case 3: std::abort();
      case 4:
        c.up_bytes(999, "nonsense");
        for (;;) ::pause();
      case 5:
        for (;;) ::pause();
      case 6: ::_exit(7);
    }
  }

  void leave() {
    c.up_bytes(wire::kUpGoodbye, "");
    std::exit(0);
  }

  void handle(const test::Record& r) {
    switch (r.type) {
      case wire::kDnExit:
      case wire::kDnShutdown: leave(); break;
      case wire::kDnActorInit: {
        auto init = r.as<wire::DnActorInit>();
        actor = init.id;
        std::string record = r.tail<wire::DnActorInit>();
        wire::UpActor u{init.id, init.incarnation, RAY_OK, 0, 0};
        if (record == "fail") {
          std::string why = "constructor failed";
          u.code = RAY_TASK_FAILED;
          u.size = static_cast<uint32_t>(why.size());
          c.up(wire::kUpActorReady, u, why);
          break;
        }
        c.up(wire::kUpActorReady, u);
        break;
      }
      case wire::kDnActorWanted:
        c.up(wire::kUpActorExit, wire::UpActor{actor, 0, RAY_OK, 0, 0});
        leave();
    }
  }

  void loop() {
    for (;;) {
      test::Record r;
      while (c.wait([](const test::Record&) { return true; }, &r, 1)) handle(r);
      if (c.closed()) ::_exit(0);
      for (auto& [id, link] : c.serving) {
        RecordView v;
        while (link->tasks_in.next(&v) == RingConsumer::Next::kRecord) {
          wire::TaskHeader h;
          std::memcpy(&h, v.data, sizeof h);
          link->tasks_in.release();
          run(link.get(), h);
        }
      }
    }
  }
};

}  // namespace

int main() {
  const char* number = std::getenv(wire::kEnvWorker);
  const char* dir = std::getenv(wire::kEnvSession);
  if (!number || !dir) return 2;
  Worker w;
  w.session = dir;
  auto token = node::read_file(w.session + "/token");
  if (!token.ok()) return 3;
  if (w.c.hello(dir, *token, RAY_MODE_WORKER, RAY_LANG_NATIVE, std::strtoull(number, nullptr, 10),
                "\x80") != RAY_OK)
    return 4;
  w.loop();
}
