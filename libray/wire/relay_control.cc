// See relay_control.h.
#include "libray/wire/relay_control.h"

#include "libray/wire/cursor.h"
#include "libray/wire/msgpack.h"

namespace ray::relay {
namespace {

uint32_t narrow(wire::Cursor* r) {
  const uint64_t v = r->uint64();
  if (v > UINT32_MAX) r->fail();
  return static_cast<uint32_t>(v);
}

void put(const Peer& p, wire::Writer* w) {
  w->array(7).uint64(p.index).uint64(p.epoch).id(p.id).str(p.relay).str(p.name).boolean(p.dead).str(p.cause);
}

void get(wire::Cursor* r, Peer* out) {
  r->array_of(7);
  out->index = narrow(r), out->epoch = narrow(r), out->id = r->id();
  out->relay = r->text(), out->name = r->text(), out->dead = r->boolean(), out->cause = r->text();
}

// Fields behind the type.
uint32_t fields(Control type) {
  switch (type) {
    case Control::kPeer:
    case Control::kJobOver:
    case Control::kListening: return 1;
    case Control::kClose:
    case Control::kFailed: return 2;
    case Control::kJob: return 3;
    case Control::kConfigure:
    case Control::kOpen: return 5;
  }
  return UINT32_MAX;
}

}  // namespace

std::string encode(const ControlMessage& m) {
  std::string out;
  wire::Writer w(&out);
  w.array(1 + fields(m.type)).uint64(static_cast<uint64_t>(m.type));
  switch (m.type) {
    case Control::kConfigure:
      put(m.peer, &w);
      w.str(m.session).str(m.listen).str(m.certificate).str(m.ca);
      break;
    case Control::kPeer: put(m.peer, &w); break;
    case Control::kJob: w.id(m.id).boolean(m.more).bin(m.text); break;
    case Control::kOpen: w.uint64(m.spawn).uint64(m.node).id(m.id).int64(m.language).bin(m.resources); break;
    case Control::kClose: w.uint64(m.spawn).boolean(m.force); break;
    case Control::kJobOver: w.id(m.id); break;
    case Control::kListening: w.str(m.text); break;
    case Control::kFailed: w.uint64(m.spawn).str(m.text); break;
  }
  return out;
}

Status decode(std::string_view bytes, ControlMessage* out) {
  wire::Cursor r(bytes);
  const uint32_t n = r.array();
  const uint64_t type = r.uint64();
  out->type = static_cast<Control>(type);
  if (!r.ok() || type > UINT8_MAX || fields(out->type) != n - 1)
    return error(RAY_INVALID_ARGUMENT, "a message between daemon and relay that nobody knows");
  switch (out->type) {
    case Control::kConfigure:
      get(&r, &out->peer);
      out->session = r.text(), out->listen = r.text(), out->certificate = r.text(), out->ca = r.text();
      break;
    case Control::kPeer: get(&r, &out->peer); break;
    case Control::kJob: out->id = r.id(), out->more = r.boolean(), out->text = r.text(); break;
    case Control::kOpen:
      out->spawn = r.uint64(), out->node = narrow(&r), out->id = r.id(), out->language = r.int32();
      out->resources = r.text();
      break;
    case Control::kClose: out->spawn = r.uint64(), out->force = r.boolean(); break;
    case Control::kJobOver: out->id = r.id(); break;
    case Control::kListening: out->text = r.text(); break;
    case Control::kFailed: out->spawn = r.uint64(), out->text = r.text(); break;
  }
  return r.done() ? Status() : error(RAY_INVALID_ARGUMENT, "a damaged message between daemon and relay");
}

}  // namespace ray::relay
