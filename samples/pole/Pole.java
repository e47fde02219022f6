// Pole.java -- learns to balance a pole on a cart, then serves what it has learnt. samples/pole has the same program in
// C, C++, Python and Rust; all print the same lines: ./dev run --lang java
//
// Tasks simulate (play), an actor serves (Server), the driver learns: of 16 policies around the present one the mean of
// the four best is the next. Only + - * / on doubles, so that every language comes to the same numbers.
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;
import org.libray.ActorHandle;
import org.libray.ObjectRef;
import org.libray.Ray;

public class Pole {
    static final int CANDIDATES = 16, BEST = 4, EPISODES = 4, STEPS = 500, SOLVED = 47500;

    // SplitMix64: numbers in [-1, 1) that depend on the seed alone.
    static class Random {
        private long state;

        Random(long seed) {
            state = seed;
        }

        double next() {
            long z = state += 0x9E3779B97F4A7C15L;
            z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
            z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
            return ((z ^ z >>> 31) >>> 11) * 0x1p-52 - 1;
        }
    }

    // The cart's place and speed, the pole's angle and speed.
    record State(double x, double v, double a, double w) {
        static State begin(long seed) {
            Random random = new Random(seed);
            return new State(0.05 * random.next(), 0.05 * random.next(), 0.05 * random.next(), 0.05 * random.next());
        }

        // 20 ms after a push of 10 N; small angles, so that short polynomials are its sine and cosine.
        State push(boolean right) {
            double sine = a * (1 - a * a / 6 * (1 - a * a / 20)), cosine = 1 - a * a / 2 * (1 - a * a / 12);
            double force = ((right ? 10.0 : -10.0) + 0.05 * w * w * sine) / 1.1;
            double turn = (9.8 * sine - cosine * force) / (0.5 * (4.0 / 3 - 0.1 * cosine * cosine / 1.1));
            return new State(x + 0.02 * v, v + 0.02 * (force - 0.05 * turn * cosine / 1.1), a + 0.02 * w, w + 0.02 * turn);
        }

        boolean stands() {
            return -2.4 < x && x < 2.4 && -0.2095 < a && a < 0.2095;
        }
    }

    static boolean isRight(List<Double> policy, State s) {
        return policy.get(0) * s.x + policy.get(1) * s.v + policy.get(2) * s.a + policy.get(3) * s.w > 0;
    }

    // How many steps the pole stood, in so many episodes from this one on.
    static long play(List<Double> policy, long first, int episodes) {
        long steps = 0;
        for (long episode = first; episode < first + episodes; episode++) {
            State state = State.begin(episode);
            for (int step = 0; step < STEPS && state.stands(); step++, steps++) state = state.push(isRight(policy, state));
        }
        return steps;
    }

    // Answers with the push that a policy makes of a state.
    static class Server {
        private final List<Double> policy;

        Server(List<Double> policy) {
            this.policy = policy;
        }

        boolean isRight(State state) {
            return Pole.isRight(policy, state);
        }
    }

    static List<Double> candidate(List<Double> policy, long seed) {
        Random random = new Random(seed);
        List<Double> out = new ArrayList<>();
        for (double x : policy) out.add(x + random.next());
        return out;
    }

    record Learnt(List<Double> policy, long best) {}

    // The mean of the best candidates, and how long the best one kept the pole up.
    static Learnt learn(List<Double> policy, int generation) {
        List<List<Double>> candidates = new ArrayList<>();
        List<ObjectRef<Long>> played = new ArrayList<>();
        for (int i = 0; i < CANDIDATES; i++) {
            candidates.add(candidate(policy, 1000 * generation + i));
            played.add(Ray.task(Pole::play, candidates.get(i), 1000L * generation, EPISODES).remote());
        }
        List<Long> steps = Ray.get(played);
        int[] best = IntStream.range(0, CANDIDATES).boxed().sorted(Comparator.comparing(steps::get, Comparator.reverseOrder()))
            .limit(BEST).mapToInt(i -> i).toArray(); // of equal ones the first
        List<Double> mean = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            double sum = 0;
            for (int b : best) sum += candidates.get(b).get(i);
            mean.add(sum / BEST);
        }
        return new Learnt(mean, steps.get(best[0]));
    }

    // How long the pole stands in 100 episodes that learning never saw.
    static long judge(List<Double> policy) {
        List<ObjectRef<Long>> played = new ArrayList<>();
        for (int i = 0; i < 10; i++) played.add(Ray.task(Pole::play, policy, 1_000_000L + 10 * i, 10).remote());
        return Ray.get(played).stream().mapToLong(n -> n).sum();
    }

    public static void main(String[] args) {
        Ray.init();
        List<Double> policy = List.of(0.0, 0.0, 0.0, 0.0);
        long judged = 0;
        for (int generation = 1; judged < SOLVED; generation++) {
            Learnt learnt = learn(policy, generation);
            policy = learnt.policy;
            judged = judge(policy);
            System.out.println("generation " + generation + ": the best of 16 kept the pole up " + learnt.best
                + " of 2000 steps, their mean " + judged + " of 50000");
        }

        ActorHandle<Server> server = Ray.actor(Server::new, policy).remote();
        State state = State.begin(7);
        int step = 0, rights = 0;
        for (; step < STEPS && state.stands(); step++) {
            boolean right = server.task(Server::isRight, state).remote().get();
            state = state.push(right);
            rights += right ? 1 : 0;
        }
        System.out.println("served " + step + " pushes, " + rights + " to the right: the pole " + (state.stands() ? "stands" : "fell"));
        Ray.shutdown();
    }
}
