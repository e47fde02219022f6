//! pole.rs -- learns to balance a pole on a cart, then serves what it has learnt. samples/pole has the same program in
//! C, C++, Java and Python; all print the same lines: ./dev run --lang rust
//!
//! Tasks simulate (`play`), an actor serves (`Server`), the driver learns: of 16 policies around the present one the
//! mean of the four best is the next. Only + - * / on doubles, so that every language comes to the same numbers.

/// A policy; or a state: the cart's place and speed, the pole's angle and speed.
type Numbers = [f64; 4];
const CANDIDATES: u64 = 16;
const BEST: usize = 4;
const EPISODES: u64 = 4;
const STEPS: u64 = 500;
const SOLVED: u64 = 47_500;

/// SplitMix64: numbers in [-1, 1) that depend on the seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

fn begin(seed: u64) -> Numbers {
    let mut random = Random(seed);
    [(); 4].map(|()| 0.05 * random.next())
}

/// The state 20 ms after a push of 10 N; small angles, so that short polynomials are its sine and cosine.
fn push([x, v, a, w]: Numbers, right: bool) -> Numbers {
    let sine = a * (1.0 - a * a / 6.0 * (1.0 - a * a / 20.0));
    let cosine = 1.0 - a * a / 2.0 * (1.0 - a * a / 12.0);
    let force = (if right { 10.0 } else { -10.0 } + 0.05 * w * w * sine) / 1.1;
    let turn = (9.8 * sine - cosine * force) / (0.5 * (4.0 / 3.0 - 0.1 * cosine * cosine / 1.1));
    let speed = v + 0.02 * (force - 0.05 * turn * cosine / 1.1);
    [x + 0.02 * v, speed, a + 0.02 * w, w + 0.02 * turn]
}

fn stands(state: Numbers) -> bool {
    -2.4 < state[0] && state[0] < 2.4 && -0.2095 < state[2] && state[2] < 0.2095
}

fn is_right(p: Numbers, s: Numbers) -> bool {
    p[0] * s[0] + p[1] * s[1] + p[2] * s[2] + p[3] * s[3] > 0.0
}

/// How many steps the pole stood, in so many episodes from this one on.
#[libray::remote]
fn play(policy: Numbers, first: u64, episodes: u64) -> u64 {
    let one = |seed| {
        let (mut state, mut step) = (begin(seed), 0);
        while step < STEPS && stands(state) {
            state = push(state, is_right(policy, state));
            step += 1;
        }
        step
    };
    (first..first + episodes).map(one).sum()
}

/// Answers with the push that a policy makes of a state.
struct Server {
    policy: Numbers,
}

#[libray::remote]
impl Server {
    pub fn new(policy: Numbers) -> Self {
        Server { policy }
    }

    pub fn is_right(&self, state: Numbers) -> bool {
        is_right(self.policy, state)
    }
}

fn candidate(policy: Numbers, seed: u64) -> Numbers {
    let mut random = Random(seed);
    policy.map(|x| x + random.next())
}

/// The mean of the best candidates, and how long the best one kept the pole up.
fn learn(policy: Numbers, generation: u64) -> libray::Result<(Numbers, u64)> {
    let candidates: Vec<_> = (0..CANDIDATES)
        .map(|i| candidate(policy, 1000 * generation + i))
        .collect();
    let played: Vec<_> = candidates
        .iter()
        .map(|c| play::remote(*c, 1000 * generation, EPISODES))
        .collect::<Result<_, _>>()?;
    let steps = libray::get_all(&played)?;
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(steps[*i])); // of equal ones the first
    let best = &order[..BEST];
    let mean =
        std::array::from_fn(|i| best.iter().map(|b| candidates[*b][i]).sum::<f64>() / BEST as f64);
    Ok((mean, steps[best[0]]))
}

/// How long the pole stands in 100 episodes that learning never saw.
fn judge(policy: Numbers) -> libray::Result<u64> {
    let played: Vec<_> = (0..10)
        .map(|i| play::remote(policy, 1_000_000 + 10 * i, 10))
        .collect::<Result<_, _>>()?;
    Ok(libray::get_all(&played)?.iter().sum())
}

fn main() -> libray::Result<()> {
    let _ray = libray::init()?;
    let (mut policy, mut judged, mut generation) = ([0.0; 4], 0, 0);
    while judged < SOLVED {
        generation += 1;
        let best;
        (policy, best) = learn(policy, generation)?;
        judged = judge(policy)?;
        println!(
            "generation {generation}: the best of 16 kept the pole up {best} of 2000 steps, their mean {judged} of 50000"
        );
    }

    let server = Server::remote(policy)?;
    let (mut state, mut step, mut rights) = (begin(7), 0, 0);
    while step < STEPS && stands(state) {
        let right = server.is_right(state)?.get()?;
        state = push(state, right);
        step += 1;
        rights += u32::from(right);
    }
    let end = if stands(state) { "stands" } else { "fell" };
    println!("served {step} pushes, {rights} to the right: the pole {end}");
    Ok(())
}
