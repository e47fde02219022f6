// See node_core.h. The machine as a whole: passes, late work, timers, what people are told, invariants.
#include "libray/node/core/node_core.h"

#include <algorithm>

#include "libray/lineage/record.h"
#include "libray/wire/cursor.h"

namespace ray::node {
namespace {
constexpr int64_t kAgainNs = 250'000'000;
constexpr int64_t kSayAgainNs = 10'000'000'000;
}  // namespace

NodeCore::NodeCore(CoreOptions options) : options_(std::move(options)), scheduler_(options_.scheduler) {
  if (options_.watch_counts) directory_.watch_counts();
}

// ---- passes and late work

void NodeCore::on(const event::PassEnds&) {
  object::Actions actions;
  directory_.end_pass(&actions);
  apply(actions);
}

void NodeCore::on(const event::RingsRead&) {
  for (const Late& work : late_.take()) {
    carry_out(work);
    late_.done(work);
  }
}

void NodeCore::carry_out(const Late& work) {
  switch (work.kind) {
    case Late::kConnect: {
      actor::Actions actions;
      if (may_hold(work.process)) actors_.connect(work.id, work.process, &actions);
      return apply(actions);
    }
    case Late::kKill: {
      actor::Actions actions;
      actors_.kill(work.id, work.may_restart, &actions);
      return apply(actions);
    }
    case Late::kResolve: {
      object::Actions actions;
      if (may_hold(work.process)) directory_.resolve(work.id, work.process, &actions);
      return apply(actions);
    }
    case Late::kClaim: return claim_name(work.id);
    case Late::kFind: return find_late(work);
    case Late::kInfo: return info_late(work);
    case Late::kFunction: return function_late(work);
    case Late::kPong: return reply(work.process, work.req_id, RAY_OK, wire::empty_array());  // after the kills before it
  }
}

// ---- time

void NodeCore::on(const event::Timer&) {
  give_up(now_);
  again(now_);
}

bool NodeCore::wants_decision(int64_t now) const {
  if (ending_) return false;
  const int64_t at = scheduler_.next_deadline(now);
  return decide_ || (at && at <= now);
}

int64_t NodeCore::next_deadline(int64_t now) const {
  int64_t at = scheduler_.next_deadline(now);
  auto earlier = [&at](int64_t t) {
    if (t && (!at || t < at)) at = t;
  };
  for (const auto& [number, s] : spawns_) earlier(s.give_up_at);
  if (int64_t first = spills_ && !ending_ ? scheduler_.next_spill() : 0) earlier(std::max(first, spill_at_));
  earlier(again_at_);
  return at;
}

// What could not be made for want of something is tried again: links first of all.
void NodeCore::try_again() {
  if (!again_at_) again_at_ = now_ + kAgainNs;
}

void NodeCore::again(int64_t now) {
  if (!again_at_ || now < again_at_) return;
  again_at_ = 0;
  decide_ = true;
  std::vector<std::pair<ActorId, uint32_t>> told;
  for (auto [client, worker] : links_.take_later())
    if (const actor::Actor* a = actors_.of_worker(worker); a && a->state == wire::kActorAlive)
      told.push_back({a->spec.id, client});
  for (const auto& [id, client] : told) tell_actor(id, client);
}

// ---- what others are told

void NodeCore::on(const event::Shortage& e) {
  if (e.anew) shortage_said_.erase(e.kind);
  note_shortage(e.kind, e.text);
}

// Said to the log, the error table and all drivers, each kind at most every ten seconds.
void NodeCore::note_shortage(const std::string& kind, const std::string& text) {
  auto [it, first] = shortage_said_.try_emplace(kind, now_);
  if (!first && now_ - it->second < kSayAgainNs) return;
  it->second = now_;
  log(kLogError, it->first.c_str(), text);
  report(lineage::kError, 0, {{"kind", kind}, {"message", text}});
  for (uint32_t index : live_)
    if (processes_[index]->driver) put(action::Notice{index, text});
}

void NodeCore::report(uint16_t type, uint32_t process, std::map<std::string, std::string> fields) {
  put(action::Report{type, process, std::move(fields)});
}

void NodeCore::log(LogLevel level, const char* kind, std::string text) { put(action::Log{level, kind, std::move(text)}); }

void NodeCore::reply(uint32_t process, uint64_t req_id, int32_t code, std::string body) {
  put(action::Reply{process, req_id, code, std::move(body)});
}

void NodeCore::cut_off(uint32_t process, const Status& why) {
  if (!why.ok()) put(action::CutOff{process, why.message()});
}

// ---- invariants

std::vector<std::pair<const char*, uint64_t>> NodeCore::sizes() const {
  std::vector<std::pair<const char*, uint64_t>> rows = {
      {"jobs", jobs_.size()}, {"environments", envs_.size()}, {"environment_bytes", envs_.bytes()},
      {"actors", actors_.all().size()}, {"actor_rows", rows_.size()}, {"names", names_.size()}, {"late", late_.size()},
      {"actor_dependencies", actor_dependencies_.size()}, {"actor_environments", actor_envs_.size()},
      {"links", links_.size()}, {"spilled", spills_ ? spills_->size() : 0}, {"peers", peers_.size()},
      {"groups", groups_.size()}, {"objects", directory_.size()}, {"functions", functions_.size()},
      {"function_users", function_users_.size()}, {"function_bytes", functions_.bytes()},
      {"workers", spawns_.size()}, {"processes", live_.size()}};
  auto more = scheduler_.sizes();
  rows.insert(rows.end(), more.begin(), more.end());
  return rows;
}

std::string NodeCore::check() const {
  std::string broken = scheduler_.check();
  if (broken.empty()) broken = actors_.check();
  if (broken.empty()) broken = directory_.check();
  if (broken.empty()) broken = links_.check();
  if (broken.empty()) broken = late_.check();
  if (broken.empty()) broken = names_.check();
  if (broken.empty()) broken = rows_.check();
  if (broken.empty()) broken = check_groups();
  if (broken.empty()) broken = check_functions();
  if (broken.empty()) broken = check_processes();
  if (broken.empty()) broken = check_counts();
  return broken;
}

std::string NodeCore::check_processes() const {
  std::map<uint32_t, uint32_t> spawns;
  for (const auto& [number, s] : spawns_) {
    ++spawns[s.pool.job];
    if (s.process == kNone) continue;
    const Process* p = process(s.process);
    if (!p || p->spawn != number || p->foreign != s.foreign) return "a worker's record names another process";
    if (s.counted) return "a worker that is there counts as starting";
  }
  for (uint32_t index : live_) {
    const Process* p = process(index);
    if (!p || p->index != index) return "a process that lives has no record";
    if (!p->driver && !spawns_.count(p->spawn)) return "a worker without the record of its start";
    auto job = jobs_.find(p->job);
    if (job == jobs_.end()) return "a process of a job that nobody knows";
    if (p->driver && (job->second.ended || job->second.driver != index)) return "a driver of a job that has another, or none";
  }
  for (const auto& [index, job] : jobs_) {
    const uint32_t n = spawns.count(index) ? spawns.at(index) : 0;
    if (n != job.spawns) return "the workers of a job are counted wrong";
    const Process* driver = process(job.driver);  // or another one that has its index by now
    if (job.ended == (driver && driver->driver && driver->job == index))
      return "a job has ended with its driver there, or not without";
  }
  return "";
}

// Environments, and what is held for actors.
std::string NodeCore::check_counts() const {
  std::map<uint32_t, uint32_t> uses;
  for (uint32_t index : live_)
    for (const auto& [shape, env] : processes_[index]->envs) ++uses[env];
  for (const auto& [number, s] : spawns_)
    if (s.pool.env && !s.foreign) ++uses[s.pool.env];
  for (const auto& [id, env] : actor_envs_) ++uses[env];
  if (uses != envs_.uses()) return "the uses of runtime environments are counted wrong";
  for (const auto& [id, env] : actor_envs_)
    if (const actor::Actor* a = actors_.find(id); !a || !a->waiting) return "an actor that does not wait keeps an environment";
  for (const auto& [id, key] : actor_functions_)
    if (const actor::Actor* a = actors_.find(id); !a || a->state == wire::kActorDead) return "a dead actor keeps its class";
  for (const auto& [id, held] : actor_dependencies_)
    if (const actor::Actor* a = actors_.find(id); !a || a->state == wire::kActorDead) return "a dead actor keeps its arguments";
  return "";
}

}  // namespace ray::node
