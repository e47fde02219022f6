// A relay for tests of the daemon: speaks libray/wire/relay_control.h, and its stand-ins run what they are given by
// themselves, as test_worker.cc does: function 1 answer at once · 5 never answer.
//
// Files in the session directory make it do more, as soon as they are there: relay-crash: it dies · relay-fails: it opens
// nothing · relay-mute: neither · relay-deaf: it ends no stand-in. What it was told is in relay-told, a line each.
#include <poll.h>
#include <sys/prctl.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "libray/session/session.h"
#include "libray/wire/relay_control.h"
#include "raw_client.h"

using namespace ray;
using relay::Control;
using relay::ControlMessage;

namespace {

std::string g_session, g_token;
std::map<uint64_t, std::unique_ptr<test::RawClient>> g_stand_ins;

bool there(const char* file) { return std::filesystem::exists(g_session + "/" + file); }

void note(const std::string& line) { std::ofstream(g_session + "/relay-told", std::ios::app) << line << std::endl; }

void say(const ControlMessage& m) {
  const std::string bytes = relay::encode(m);
  (void)!::send(relay::kControlFd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

void open(const ControlMessage& m) {
  ControlMessage failed;
  failed.type = Control::kFailed;
  failed.spawn = m.spawn;
  failed.text = "a test wants it so";
  if (there("relay-fails")) return say(failed);
  if (there("relay-mute")) return;
  auto c = std::make_unique<test::RawClient>();
  const int32_t code = c->hello(g_session, g_token, RAY_MODE_WORKER, m.language, m.spawn, "\x80");
  if (code != RAY_OK) return note("refused " + std::to_string(m.spawn) + " " + c->text);
  g_stand_ins[m.spawn] = std::move(c);
}

void handle(const ControlMessage& m) {
  switch (m.type) {
    case Control::kConfigure: {
      g_session = m.session;
      g_token = *session::read_file(g_session + "/token");
      note("configure " + m.listen);
      ControlMessage listening;
      listening.type = Control::kListening;
      listening.text = m.listen.size() > 2 && m.listen.substr(m.listen.size() - 2) == ":0"
                           ? m.listen.substr(0, m.listen.size() - 2) + ":4242" : m.listen;
      return say(listening);
    }
    case Control::kPeer:
      return note("peer " + std::to_string(m.peer.index) + (m.peer.dead ? " dead " : " ") + m.peer.relay);
    case Control::kJob: return note("job " + m.id.hex() + (m.more ? " more" : " " + wire::to_text(m.text, 4000)));
    case Control::kOpen:
      note("open " + std::to_string(m.spawn) + " " + std::to_string(m.node) + " " + wire::to_text(m.resources));
      return open(m);
    case Control::kClose:
      note("close " + std::to_string(m.spawn) + (m.force ? " force" : ""));
      if (there("relay-deaf")) return;
      if (auto s = g_stand_ins.find(m.spawn); s != g_stand_ins.end() && !m.force) s->second->up_bytes(wire::kUpGoodbye, "");
      g_stand_ins.erase(m.spawn);
      return;
    case Control::kJobOver: return note("over " + m.id.hex());
    default: return;
  }
}

void serve(test::RawClient* c) {
  test::Record r;
  while (c->wait([](const test::Record&) { return true; }, &r, 1)) {}
  for (auto& [id, link] : c->serving) {
    RecordView v;
    while (link->tasks_in.next(&v) == RingConsumer::Next::kRecord) {
      wire::TaskHeader h;
      std::memcpy(&h, v.data, sizeof h);
      link->tasks_in.release();
      link->header->started.store(link->tasks_in.position());
      if (h.function != 1) continue;
      wire::DoneHeader d{h.tag, RAY_OK, 0, 1000};
      void* at;
      while (!(at = link->results_out.reserve(wire::kLinkDone, sizeof d))) ::usleep(100);
      std::memcpy(at, &d, sizeof d);
      link->results_out.publish();
      ring(&c->page->bells[link->peer].armed);
    }
  }
}

}  // namespace

int main() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (;;) {
    pollfd p{relay::kControlFd, POLLIN, 0};
    ::poll(&p, 1, 1);
    if (p.revents) {
      std::string bytes(relay::kMaxControl, '\0');
      const ssize_t n = ::recv(relay::kControlFd, bytes.data(), bytes.size(), 0);
      if (n <= 0) return 0;
      bytes.resize(static_cast<size_t>(n));
      ControlMessage m;
      if (!relay::decode(bytes, &m).ok()) return 3;
      handle(m);
    }
    if (!g_session.empty() && there("relay-crash")) {
      std::filesystem::remove(g_session + "/relay-crash");
      std::abort();
    }
    for (auto& [spawn, c] : g_stand_ins) serve(c.get());
  }
}
