// libray-sim: runs of the simulated node, one per seed. `./dev sim` builds and calls it. A run that breaks something
// ends the program with status 1, the last lines of its history, and the command that makes the same run again. The digest
// is that of all histories: a change that is none of behaviour leaves it as it was.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "libray/sim/world.h"

namespace {

struct Options {
  uint64_t first = 1, seeds = 1000;
  bool trace = false;
};

bool parse(int argc, char** argv, Options* o) {
  for (int i = 1; i < argc; ++i) {
    bool more = i + 1 < argc;
    if (std::strcmp(argv[i], "--trace") == 0) o->trace = true;
    else if (more && std::strcmp(argv[i], "--seeds") == 0) o->seeds = std::strtoull(argv[++i], nullptr, 10);
    else if (more && std::strcmp(argv[i], "--seed") == 0) o->first = std::strtoull(argv[++i], nullptr, 10);
    else return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  if (!parse(argc, argv, &o)) {
    std::fprintf(stderr, "usage: %s [--seeds N] [--seed FIRST] [--trace]\n", argv[0]);
    return 2;
  }
  uint64_t decisions = 0, tasks = 0, grants = 0, deaths = 0;
  uint64_t digest = 0;
  double closest = 0, simulated = 0;
  auto began = std::chrono::steady_clock::now();
  for (uint64_t seed = o.first; seed < o.first + o.seeds; ++seed) {
    ray::sim::WorldOptions w;
    w.seed = seed;
    w.lines = o.trace ? 10'000'000 : 60;
    ray::sim::Outcome out = ray::sim::run(w);
    if (o.trace || !out.broken.empty()) std::printf("%s", out.history.c_str());
    if (!out.broken.empty()) {
      std::printf("seed %llu broke: %s\nagain: ./dev sim --seeds 1 --seed %llu --trace\n",
                  static_cast<unsigned long long>(seed), out.broken.c_str(), static_cast<unsigned long long>(seed));
      return 1;
    }
    digest = (digest ^ out.digest) * 0x100000001B3u;
    decisions += out.decisions, tasks += out.tasks, grants += out.grants, deaths += out.deaths;
    closest = closest > out.closest ? closest : out.closest;
    simulated += static_cast<double>(out.simulated_ns) / 1e9;
  }
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("%llu seeds, nothing broken: %.0f s simulated in %.1f s; %llu decisions, %llu tasks, %llu leases, "
              "%llu deaths; nobody came closer to the bound of his wait than %.2f of it; digest %016llx\n",
              static_cast<unsigned long long>(o.seeds), simulated, took.count(),
              static_cast<unsigned long long>(decisions), static_cast<unsigned long long>(tasks),
              static_cast<unsigned long long>(grants), static_cast<unsigned long long>(deaths), closest,
              static_cast<unsigned long long>(digest));
  return 0;
}
