// pole.cc -- learns to balance a pole on a cart, then serves what it has learnt. samples/pole has the same program in C,
// Java, Python and Rust; all print the same lines: ./dev run --lang cpp
//
// Tasks simulate (play), an actor serves (Server), the driver learns: of 16 policies around the present one the mean of
// the four best is the next. Only + - * / on doubles, so that every language comes to the same numbers.
#include <ray.hpp>

#include <algorithm>
#include <array>
#include <iostream>
#include <numeric>

using Numbers = std::array<double, 4>;  // a policy; a state: the cart's place and speed, the pole's angle and speed
constexpr int kCandidates = 16, kBest = 4, kEpisodes = 4, kSteps = 500, kSolved = 47500;

// SplitMix64: numbers in [-1, 1) that depend on the seed alone.
struct Random {
  uint64_t state;
  double next() {
    uint64_t z = state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
  }
};

Numbers begin(uint64_t seed) {
  Random random{seed};
  Numbers state;
  for (double& x : state) x = 0.05 * random.next();
  return state;
}

// The state 20 ms after a push of 10 N; small angles, so that short polynomials are its sine and cosine.
Numbers push(const Numbers& state, bool right) {
  auto [x, v, a, w] = state;
  double sine = a * (1 - a * a / 6 * (1 - a * a / 20)), cosine = 1 - a * a / 2 * (1 - a * a / 12);
  double force = ((right ? 10.0 : -10.0) + 0.05 * w * w * sine) / 1.1;
  double turn = (9.8 * sine - cosine * force) / (0.5 * (4.0 / 3 - 0.1 * cosine * cosine / 1.1));
  return {x + 0.02 * v, v + 0.02 * (force - 0.05 * turn * cosine / 1.1), a + 0.02 * w, w + 0.02 * turn};
}

bool stands(const Numbers& state) {
  return -2.4 < state[0] && state[0] < 2.4 && -0.2095 < state[2] && state[2] < 0.2095;
}

bool is_right(const Numbers& policy, const Numbers& state) {
  return policy[0] * state[0] + policy[1] * state[1] + policy[2] * state[2] + policy[3] * state[3] > 0;
}

// How many steps the pole stood, in so many episodes from this one on.
int64_t play(Numbers policy, uint64_t first, int episodes) {
  int64_t steps = 0;
  for (uint64_t episode = first; episode < first + episodes; ++episode) {
    Numbers state = begin(episode);
    for (int step = 0; step < kSteps && stands(state); ++step, ++steps) state = push(state, is_right(policy, state));
  }
  return steps;
}

// Answers with the push that a policy makes of a state.
class Server {
 public:
  explicit Server(Numbers policy) : policy_(policy) {}
  bool is_right(Numbers state) const { return ::is_right(policy_, state); }

 private:
  Numbers policy_;
};

RAY_REMOTE(play);
RAY_ACTOR(Server(Numbers), &Server::is_right);

Numbers candidate(const Numbers& policy, uint64_t seed) {
  Random random{seed};
  Numbers out = policy;
  for (double& x : out) x += random.next();
  return out;
}

// The mean of the best candidates, and how long the best one kept the pole up.
std::pair<Numbers, int64_t> learn(const Numbers& policy, uint64_t generation) {
  std::vector<Numbers> candidates;
  std::vector<ray::ref<int64_t>> played;
  for (int i = 0; i < kCandidates; ++i) {
    candidates.push_back(candidate(policy, 1000 * generation + i));
    played.push_back(ray::task(play)(candidates.back(), 1000 * generation, kEpisodes));
  }
  std::vector<int64_t> steps = ray::get(played);
  std::vector<int> order(kCandidates);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return steps[a] > steps[b]; });  // of equal ones the first
  Numbers mean{};
  for (int b = 0; b < kBest; ++b)
    for (int i = 0; i < 4; ++i) mean[i] += candidates[order[b]][i];
  for (double& x : mean) x /= kBest;
  return {mean, steps[order[0]]};
}

// How long the pole stands in 100 episodes that learning never saw.
int64_t judge(const Numbers& policy) {
  std::vector<ray::ref<int64_t>> played;
  for (int i = 0; i < 10; ++i) played.push_back(ray::task(play)(policy, 1000000 + 10 * i, 10));
  std::vector<int64_t> steps = ray::get(played);
  return std::accumulate(steps.begin(), steps.end(), int64_t{0});
}

int main() {
  ray::session session;
  Numbers policy{};
  int64_t best, judged = 0;
  for (int generation = 1; judged < kSolved; ++generation) {
    std::tie(policy, best) = learn(policy, generation);
    judged = judge(policy);
    std::cout << "generation " << generation << ": the best of 16 kept the pole up " << best << " of 2000 steps, their mean "
              << judged << " of 50000\n";
  }

  auto server = ray::actor<Server>(policy);
  Numbers state = begin(7);
  int step = 0, rights = 0;
  for (; step < kSteps && stands(state); ++step) {
    bool right = server.call(&Server::is_right, state).get();
    state = push(state, right);
    rights += right;
  }
  std::cout << "served " << step << " pushes, " << rights << " to the right: the pole "
            << (stands(state) ? "stands" : "fell") << "\n";
}
