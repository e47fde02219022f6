// See node_core.h. The end of a job: with its driver, but for what detached actors need.
#include "libray/node/core/node_core.h"

namespace ray::node {

void NodeCore::on(const event::ZygoteBegan& e) {
  if (auto job = jobs_.find(e.job); job != jobs_.end()) ++job->second.zygotes;
}

void NodeCore::on(const event::ZygoteGone& e) {
  if (auto job = jobs_.find(e.job); job != jobs_.end()) --job->second.zygotes;
  forget_job(e.job);
}

void NodeCore::end_job(uint32_t index) {
  auto it = jobs_.find(index);
  if (it == jobs_.end() || it->second.ended) return;
  it->second.ended = true;
  put(action::JobEnded{index});
  scheduler_.job_ended(index);
  remove_groups_of(index);
  end_rest(index, true);
  close_job(index);
}

// Processes of a job that outlive its driver: the workers of detached actors, and what works for those, the workers that
// they have leased and the actors that they have created, and so on.
std::set<uint32_t> NodeCore::spared_of(uint32_t job) const {
  std::set<uint32_t> spared;
  std::vector<uint32_t> next;
  std::multimap<uint32_t, uint32_t> created;  // by creator
  for (const auto& [id, a] : actors_.all()) {
    if (a.spec.job != job || a.state == wire::kActorDead || a.worker == actor::kNoProcess) continue;
    if (a.spec.lifetime == RAY_LIFETIME_DETACHED) next.push_back(a.worker);
    else created.emplace(a.spec.creator, a.worker);
  }
  while (!next.empty()) {
    const uint32_t index = next.back();
    next.pop_back();
    if (!spared.insert(index).second) continue;
    for (uint32_t worker : scheduler_.workers_of(index)) next.push_back(worker);
    for (auto [at, end] = created.equal_range(index); at != end; ++at) next.push_back(at->second);
  }
  return spared;
}

// Of a job without a driver: what no detached actor needs.
void NodeCore::end_rest(uint32_t index, bool with_starting) {
  const std::set<uint32_t> spared = spared_of(index);
  actor::Actions actions;
  actors_.job_ended(index, spared, &actions);
  apply(actions);
  std::vector<uint64_t> elsewhere;
  for (auto& [number, s] : spawns_) {
    if (s.pool.job != index || (s.process == kNone ? !with_starting : spared.count(s.process) > 0)) continue;
    s.cause = wire::kDeathForced;
    if (s.foreign) elsewhere.push_back(number);
    else put(action::KillSpawn{number});
  }
  for (uint64_t number : elsewhere)
    if (Spawn* s = spawn(number)) close_foreign(s, true);
}

// With a detached actor ends what only it needed, if the driver has left.
void NodeCore::actor_ended(uint32_t index, bool detached) {
  if (auto it = jobs_.find(index); detached && it != jobs_.end() && it->second.ended) end_rest(index, job_over(index));
  close_job(index);
}

// An ended job keeps its zygote and may start workers as long as a detached actor of it lives.
bool NodeCore::job_over(uint32_t index) const {
  auto it = jobs_.find(index);
  if (it == jobs_.end()) return true;
  return it->second.ended && !actors_.keeps_job(index);
}

void NodeCore::close_job(uint32_t index) {
  auto it = jobs_.find(index);
  if (it == jobs_.end() || !job_over(index)) return;
  job_over_elsewhere(&it->second);
  put(action::EndZygotes{index});  // and with them what they forked
  forget_job(index);
}

// Nobody is left who could ask for it.
void NodeCore::forget_job(uint32_t index) {
  auto it = jobs_.find(index);
  if (it == jobs_.end() || !job_over(index) || it->second.spawns > 0 || it->second.zygotes > 0) return;
  scheduler_.job_ended(index);
  jobs_.erase(it);
  put(action::ForgetJob{index});
}

const NodeCore::Job& NodeCore::job_of(uint32_t index) const {
  static const Job none;
  const Process* p = process(index);
  auto it = p ? jobs_.find(p->job) : jobs_.end();
  return it == jobs_.end() ? none : it->second;
}

}  // namespace ray::node
