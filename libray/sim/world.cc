// A run from its beginning to its end, and what is looked at meanwhile; see world.h.
#include "libray/sim/world.h"

#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr int64_t kLook = 250 * kMs;
constexpr int64_t kTold = 3 * kSecond;  // from what becomes of an actor to the last who hears of it
constexpr int64_t kLeft = 3 * kSecond;  // from the end of a job to that of its last worker
constexpr int64_t kForNothing = 2 * kSecond;  // from a client's last task to the end of its want
constexpr int64_t kTrouble = 40 * kSecond;  // for so long a command that failed may be tried ever less often

task::Flaw flaw_of(Fault fault) {
  switch (fault) {
    case Fault::kShutWorks: return task::Flaw::kShutWorks;
    case Fault::kKeepsWants: return task::Flaw::kKeepsWants;
    case Fault::kKeepsLeases: return task::Flaw::kKeepsLeases;
    case Fault::kReusesRecord: return task::Flaw::kReusesRecord;
    case Fault::kRunsAgain: return task::Flaw::kRunsAgain;
    case Fault::kUnbegunFails: return task::Flaw::kUnbegunFails;
    case Fault::kHoldsUp: return task::Flaw::kHoldsUp;
    case Fault::kOutOfOrder: return task::Flaw::kOutOfOrder;
    default: return task::Flaw::kNone;
  }
}

}  // namespace

sched::SchedulerOptions World::options_of(Random* random, uint64_t seed) {
  sched::SchedulerOptions o;
  (void)o.total.add("CPU", 1 + random->below(seed % 4 == 0 ? 8 : 3));
  if (random->one_in(2)) (void)o.total.add(kToldApart, 1 + random->below(3));
  if (random->one_in(2)) (void)o.total.add("disk", 2 + random->below(3));
  o.instanced = {kToldApart};
  o.max_workers = random->one_in(4) ? 4 + random->below(6) : 256;
  o.checks = true;
  return o;
}

static node::CoreOptions core_options(const sched::SchedulerOptions& scheduler) {
  node::CoreOptions o;
  o.scheduler = scheduler;
  return o;
}

World::World(const WorldOptions& options)
    : options_(options),
      random_(options.seed),
      history_(options.lines),
      limits_(options_of(&random_, options.seed)),
      core_(core_options(limits_)),
      s_(core_.scheduler()),
      ledger_(limits_.total, &broken_),
      tasks_(&broken_),
      waits_(&broken_),
      holds_(&broken_),
      fates_(&broken_),
      requests_(&broken_) {
  long_tasks_ = random_.one_in(3);
  streams_ = random_.one_in(2);
  deadly_ = !random_.one_in(3);
  crowded_ = limits_.max_workers < 200 && options.seed % 2 == 0;
  short_tasks_ = random_.one_in(2);
  Kit::planted = flaw_of(options.fault);
  Kit::wrong.clear();
}

// Once in a run, at some time after its beginning.
bool World::planted(Fault fault) {
  if (options_.fault != fault || fault_made_ || clock_.now() < 3 * kSecond) return false;
  history_.note(clock_.now(), "the fault is made");
  return fault_made_ = true;
}

Process* World::process(uint64_t number) {
  auto p = processes_.find(number);
  return p == processes_.end() ? nullptr : &p->second;
}

Process* World::by_index(uint32_t index) {
  auto i = indexes_.find(index);
  return i == indexes_.end() ? nullptr : &processes_.at(i->second);
}

void World::run_until(const std::function<bool()>& done, int64_t limit) {
  while (!over() && clock_.now() < limit && !done() && clock_.step()) {
  }
}

Outcome World::run() {
  history_.note(clock_.now(), "a node of {%s}, %u workers at most%s%s%s%s", limits_.total.to_string().c_str(),
                limits_.max_workers, long_tasks_ ? ", long tasks" : "", streams_ ? ", streams" : "",
                deadly_ ? ", deaths" : "", crowded_ ? ", crowded" : "");
  for (uint32_t n = 1 + random_.below(3); n > 0; --n) new_driver();
  mischief();
  look();
  watch_clients();
  watch_calls();
  int64_t lasts = random_.one_in(8) ? random_.between(20, 60) * kSecond : random_.between(4, 12) * kSecond;
  run_until([] { return false; }, clock_.now() + lasts);
  if (!over()) drain();
  if (!over()) leave();
  outcome_.broken = broken_;
  outcome_.history = history_.text();
  outcome_.digest = history_.digest();
  outcome_.tasks = tasks_.count();
  outcome_.closest = waits_.closest();
  outcome_.simulated_ns = clock_.now() - kSecond;
  return outcome_;
}

// ---- the end

void World::end_everything() {
  calm_ = true;
  history_.note(clock_.now(), "nothing new from now on");
  failing_envs_.clear();
  for (auto& [number, p] : processes_) {
    if (p.stopped) go_on(number);
    if (p.alive && p.client && p.task.length < 0) finish(&p, p.runs);
  }
  for (auto& [id, g] : groups_)
    if (!g.removed) remove_group(id);
  for (auto& [id, a] : actors_) tell(node::event::ActorKill{id, false});
  need_decision();
}

// All tasks come to their end but those that the scheduler has called impossible: their client gives them up.
void World::drain() {
  end_everything();
  run_until([this] { return tasks_.open().empty(); }, clock_.now() + 5 * kSecond);
  for (auto& [number, p] : processes_)
    for (auto& [shape, s] : p.shapes)
      if (p.alive && s.hopeless) cancel(&p, shape);
  run_until([this] { return tasks_.open().empty(); }, clock_.now() + 2000 * kSecond);
  if (over()) return;
  if (!tasks_.open().empty())
    return complain("starts: task " + std::to_string(*tasks_.open().begin()) + " has not ended after half an hour");
  run_until([] { return false; }, clock_.now() + 6 * kSecond);
  if (!over()) check_at_rest();
}

void World::check_at_rest() {
  fates_.look(clock_.now() - kTold);
  requests_.at_rest();
  holds_.at_rest();
  if (over()) return;
  sched::LocalScheduler::Counts n = s_.counts();
  if (n.leased || n.actors || n.blocked || n.waiting) complain("zero: somebody has or wants something at the end");
  for (const auto& [name, amount] : s_.available())
    if (amount != static_cast<double>(limits_.total.get(name)) / sched::kUnit)
      complain("zero: not all of " + name + " came back");
  if (!leases_.empty() || !ledger_.holders().empty()) complain("zero: a lease that nobody gave back");
  uint32_t warm = static_cast<uint32_t>((limits_.total.get("CPU") + sched::kUnit - 1) / sched::kUnit);
  if (n.idle > warm && starting_.empty()) complain("zero: idle workers that do not end");
}

void World::leave() {
  leaving_ = true;
  for (auto& [number, p] : processes_)
    if (p.driver) die(&p);
  run_until([] { return false; }, clock_.now() + 20 * kSecond);
  if (over()) return;
  if (!indexes_.empty()) complain("zero: processes that do not end");
  // What is remembered of the dead is for late callers.
  for (const auto& [name, size] : core_.sizes())
    if (size != 0 && std::string_view(name) != "resources" && std::string_view(name) != "actors" &&
        std::string_view(name) != "groups")
      complain(std::string("zero: ") + std::to_string(size) + " " + name + " are left");
  check_control_store();
}

// ---- what is looked at every quarter of a second

void World::look() {
  if (over() || leaving_) return;
  waits_.look(clock_.now(), waiting());
  look_at_jobs();
  look_at_wants();
  if (last_trouble_ == 0 || clock_.now() - last_trouble_ > 10 * kSecond) fates_.look(clock_.now() - kTold);
  for (const auto& [name, size] : s_.sizes())
    if (std::string_view(name) == "leases" && size != leases_.size())
      complain("own: there are " + std::to_string(size) + " leases, and should be " + std::to_string(leases_.size()));
  clock_.after(kLook, [this] { look(); });
}

// What a job leaves behind when it is over ends at once.
void World::look_at_jobs() {
  for (const auto& [index, number] : indexes_) {
    const Process& p = processes_.at(number);
    if (p.driver || !p.alive || !core_.job_over(p.job)) continue;
    const int64_t since = over_since_.try_emplace(number, clock_.now()).first->second;
    if (clock_.now() - since > kLeft) complain("left: worker " + std::to_string(index) + " of a job that is over");
  }
}

void World::look_at_wants() {
  for (const auto& [index, number] : indexes_) {
    Process& p = processes_.at(number);
    for (auto& [shape, s] : p.shapes) {
      if (!p.alive || p.stopped || s.want == 0 || s.pending > 0) s.for_nothing_since = 0;
      else if (!s.for_nothing_since) s.for_nothing_since = clock_.now();
      else if (clock_.now() - s.for_nothing_since > kForNothing)
        complain("wants: process " + std::to_string(index) + " wants " + std::to_string(s.want) + " leases of shape " +
                 std::to_string(shape) + " and has no task");
    }
  }
}

bool World::pool_is_well(const Pool& pool) const {
  auto t = trouble_.find(pool);
  return !failing_envs_.count(pool.env) && (t == trouble_.end() || clock_.now() - t->second > kTrouble);
}

std::vector<Waits::Request> World::waiting() {
  std::vector<Waits::Request> out;
  const int64_t now = clock_.now();
  std::map<std::pair<uint64_t, uint32_t>, uint32_t> have;
  std::map<uint64_t, uint32_t> of_client;
  for (const auto& [id, l] : leases_) ++have[{l.client, l.shape}], ++of_client[l.client];
  // A stopped client's leases come back only when its workers end.
  bool stopped = now - last_trouble_ < 10 * kSecond;
  size_t blocked = 0;
  for (const auto& [worker, h] : ledger_.holders()) blocked += h.blocked;
  bool room = ledger_.for_good(now) + 2 < limits_.max_workers && !stopped;
  for (auto& [number, p] : processes_) {
    if (p.buried || !p.alive || p.paused) continue;
    for (auto& [shape, s] : p.shapes) {
      uint32_t mine = have.count({number, shape}) ? have.at({number, shape}) : 0;
      if (s.want <= mine || s.gone) continue;
      bool could = room && !s.need.empty() && pool_is_well(s.pool) && blocked < 4 &&
                   ledger_.fits_for_good(s.need, s.where, now);
      int64_t leases = of_client.count(number) ? of_client.at(number) : 0;
      out.push_back({"shape " + std::to_string(shape) + " of process " + std::to_string(p.index) + " (" +
                         std::to_string(number) + ")", could, s.grants, 1 + std::min<int64_t>(leases, 8)});
    }
  }
  for (auto& [id, a] : actors_)
    if (a.waits)
      out.push_back({"actor " + std::to_string(id.submit_index()),
                     room && pool_is_well(a.pool) && ledger_.fits_for_good(a.need, a.where, now), 0, 1});
  for (auto& [id, g] : groups_)
    if (!g.ready && !g.removed)
      out.push_back({"group " + std::to_string(id.submit_index()),
                     !stopped && ledger_.fits_all_for_good(g.bundles, now), 0, 1});
  // Each that waits may have a turn before, and a turn is at last as long as the longest task needs.
  const int64_t each = 3 * kSecond + 4 * longest_;
  for (Waits::Request& q : out) q.bound *= each * static_cast<int64_t>(2 + out.size());
  return out;
}

Outcome run(const WorldOptions& options) { return World(options).run(); }

}  // namespace ray::sim
