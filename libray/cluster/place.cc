// See place.h.
#include "libray/cluster/place.h"

#include <algorithm>

#include "libray/wire/cursor.h"
#include "libray/wire/limits.h"

namespace ray::cluster {
namespace {

constexpr int64_t kMaxAgainNs = 60'000'000'000;

void put(const Question& q, wire::Writer* w) {
  w->array(5).uint64(q.number).id(q.task).uint64(q.attempt).boolean(q.actor);
  cluster::put(q.needs, w);
}

uint32_t narrow(wire::Cursor* r) {
  const uint64_t v = r->uint64();
  if (v > UINT32_MAX) r->fail();
  return static_cast<uint32_t>(v);
}

void get(wire::Cursor* r, Question* out) {
  r->array_of(5);
  out->number = r->uint64();
  out->task = r->id();
  out->attempt = narrow(r);
  out->actor = r->boolean();
  cluster::get(r, &out->needs);
  for (const auto& [name, amount] : out->needs)
    if (name.empty() || name.size() > wire::kMaxResourceName || (amount > 0 && amount < wire::kResourceUnit)) r->fail();
}

void get(wire::Cursor* r, Verdict* out) {
  r->array_of(5);
  out->node = narrow(r), out->epoch = narrow(r);
  out->again_ns = r->int64();
  if (out->again_ns < 0 || out->again_ns > kMaxAgainNs) r->fail();
  out->infeasible = r->boolean();
  const std::string_view text = r->bytes();
  if (text.size() > kMaxVerdictText) r->fail();
  else out->text = text;
}

}  // namespace

bool enough(const wire::Resources& totals, const wire::Resources& needs) {
  return std::all_of(needs.begin(), needs.end(), [&](const auto& need) {
    auto it = totals.find(need.first);
    return need.second < wire::kResourceUnit / 2 || (it != totals.end() && it->second > need.second - wire::kResourceUnit / 2);
  });
}

std::string encode(const Questions& q) {
  std::string out;
  wire::Writer w(&out);
  w.array(2);
  cluster::put(q.load, &w);
  w.array(static_cast<uint32_t>(q.questions.size()));
  for (const Question& one : q.questions) put(one, &w);
  return out;
}

Status decode(std::string_view bytes, Questions* out) {
  wire::Cursor r(bytes);
  r.array_of(2);
  cluster::get(&r, &out->load);
  const uint32_t n = r.array();
  if (n > kMaxQuestions) return error(RAY_INVALID_ARGUMENT, "%u demands in one request, and %zu are the most", n, kMaxQuestions);
  for (uint32_t i = 0; i < n && r.ok(); ++i) get(&r, &out->questions.emplace_back());
  return r.done() ? Status() : error(RAY_INVALID_ARGUMENT, "damaged demands of another node");
}

size_t encoded_size(const Question& q) {
  std::string bytes;
  wire::Writer w(&bytes);
  put(q, &w);
  return bytes.size();
}

std::string encode(const std::vector<Verdict>& verdicts) {
  std::string out;
  wire::Writer w(&out);
  w.array(static_cast<uint32_t>(verdicts.size()));
  for (const Verdict& v : verdicts) {
    w.array(5).uint64(v.node).uint64(v.epoch).int64(v.again_ns).boolean(v.infeasible);
    w.str(std::string_view(v.text).substr(0, kMaxVerdictText));
  }
  return out;
}

Status decode(std::string_view bytes, std::vector<Verdict>* out) {
  wire::Cursor r(bytes);
  const uint32_t n = r.array();
  if (n > kMaxQuestions) r.fail();
  for (uint32_t i = 0; i < n && r.ok(); ++i) get(&r, &out->emplace_back());
  return r.done() ? Status() : error(RAY_INVALID_ARGUMENT, "the head's answer where demands may go is damaged");
}

}  // namespace ray::cluster
