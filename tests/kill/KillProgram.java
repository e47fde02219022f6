// KillProgram.java -- the Java program of the kill matrix; program.c says what it is told by the environment and what its
// exit status means. The steps are those of program.c where the package has a surface of its own: futures of values,
// views of arrays, exceptions, streams, actors.
import java.io.IOException;
import java.nio.LongBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.function.LongConsumer;
import java.util.function.Supplier;
import java.util.stream.LongStream;
import org.libray.ActorHandle;
import org.libray.ObjectRef;
import org.libray.ObjectStream;
import org.libray.Ray;
import org.libray.RayConfig;
import org.libray.TaskCaller;
import org.libray.exception.RayException;
import org.libray.exception.RayTaskException;

public class KillProgram {
    // ---- what workers run ----
    static long add(long a, long b) {
        return a + b;
    }

    static final int LARGE = 90_000; // numbers: several arrays do not fit into the store together

    static long[] large(long seed) {
        return LongStream.range(seed, seed + LARGE).toArray();
    }

    static boolean isLarge(LongBuffer found, long seed) {
        for (int i = 0; i < found.remaining(); i++)
            if (found.get(found.position() + i) != seed + i) return false;
        return found.remaining() == LARGE;
    }

    static LongBuffer fill(long seed) {
        return LongBuffer.wrap(large(seed));
    }

    static long checkFill(long seed, LongBuffer found) {
        return isLarge(found, seed) ? seed : -1;
    }

    static long fib(long n) { // waits for its children
        if (n < 2) return n;
        ObjectRef<Long> a = Ray.task(KillProgram::fib, n - 1).setMaxRetries(-1).remote();
        ObjectRef<Long> b = Ray.task(KillProgram::fib, n - 2).setMaxRetries(-1).remote();
        return a.get() + b.get();
    }

    static Iterator<Long> countUp(long n, long base) {
        return LongStream.range(base, base + n).iterator();
    }

    static long fails(long x) {
        throw new IllegalStateException("it is " + x);
    }

    static class Counter {
        private long n;

        long next() {
            return ++n;
        }

        long echo(long x) {
            return x;
        }
    }

    // ---- verdicts of the driver ----
    static final Set<String> NONE = Set.of(), CRASHED = Set.of("WORKER_CRASHED"), DIED = Set.of("ACTOR_DIED");
    static final Set<String> RESTARTS = Set.of("ACTOR_RESTARTING");
    // What the death of the node explains: it ends everything, at whatever stage it was.
    static final Set<String> NODE_GONE =
        Set.of("NODE_DIED", "WORKER_CRASHED", "OBJECT_LOST", "CANCELLED", "UNAVAILABLE", "ACTOR_DIED", "STORE_FULL");
    static final Path DIR = Path.of(System.getenv().getOrDefault("KILL_DIR", "."));
    static final String VICTIMS = System.getenv().getOrDefault("KILL_VICTIMS", "");
    static final boolean WORKERS = VICTIMS.contains("worker"), NODE = VICTIMS.contains("node");
    static boolean nodeDied;
    static long values, errors;

    static IllegalStateException wrong(String step, Object why) {
        return new IllegalStateException(step + ": " + why);
    }

    /** What the call gives, or null after an error that is allowed. */
    static <T> T attempt(String step, Set<String> codes, Supplier<T> call) {
        try {
            return call.get();
        } catch (RayException e) {
            errors++;
            if (e.getMessage() == null || e.getMessage().isEmpty()) throw wrong(step, e.codeName() + " without a message");
            if (WORKERS && codes.contains(e.codeName())) return null;
            if (!NODE || !NODE_GONE.contains(e.codeName())) throw new IllegalStateException(step + ": " + e.codeName(), e);
            nodeDied = true;
            return null;
        }
    }

    static Long take(String step, ObjectRef<Long> ref, Set<String> codes) {
        Long value = ref == null ? null : attempt(step, codes, ref::get);
        if (value != null) values++;
        return value;
    }

    static void expect(String step, ObjectRef<Long> ref, long right, Set<String> codes) {
        Long value = take(step, ref, codes);
        if (value != null && value != right) throw wrong(step, value + ", not " + right);
    }

    static ObjectRef<Long> start(String step, TaskCaller<Long> caller) {
        return attempt(step, DIED, () -> caller.remote());
    }

    // ---- steps ----
    static void sums(long base) { // a chain through references beside loose tasks
        List<ObjectRef<Long>> refs = new ArrayList<>();
        for (long i = 0; i < 100; i++) refs.add(start("add", Ray.task(KillProgram::add, base, i).setMaxRetries(-1)));
        ObjectRef<Long> chain = refs.get(0);
        for (int i = 0; i < 20 && chain != null; i++)
            chain = start("chain", Ray.task(KillProgram::add, chain, 1L).setMaxRetries(-1));
        for (int i = 0; i < 100; i++) expect("sums", refs.get(i), base + i, NONE);
        expect("chain", chain, base + 20, NONE);
    }

    static void withoutRetries(long base) {
        List<ObjectRef<Long>> refs = new ArrayList<>();
        for (long i = 0; i < 100; i++) refs.add(start("add", Ray.task(KillProgram::add, base, i).setMaxRetries(0)));
        for (int i = 0; i < 100; i++) expect("without retries", refs.get(i), base + i, CRASHED);
    }

    static void largeObjects(long base) { // more than the store holds: spilled and restored
        List<ObjectRef<LongBuffer>> puts = new ArrayList<>();
        for (int i = 0; i < 8; i++) {
            long seed = base + i;
            puts.add(attempt("put", NONE, () -> Ray.put(LongBuffer.wrap(large(seed)))));
        }
        for (int i = 0; i < 8; i++) {
            long seed = base + i;
            ObjectRef<LongBuffer> put = puts.get(i);
            if (put != null)
                expect("large argument", start("check", Ray.task(KillProgram::checkFill, seed, put).setMaxRetries(-1)), seed, NONE);
            Boolean right = attempt("large result", NONE,
                () -> isLarge(Ray.task(KillProgram::fill, seed).setMaxRetries(-1).remote().get(), seed));
            if (Boolean.FALSE.equals(right)) throw wrong("large result", "damaged");
        }
    }

    static void recursion(long base) {
        expect("recursion", start("fib", Ray.task(KillProgram::fib, 6L).setMaxRetries(-1)), 8, NONE);
    }

    static void generator(long base) {
        long[] n = {0};
        attempt("generator", NONE, () -> {
            ObjectStream<Long> stream = Ray.stream(KillProgram::countUp, 60L, base).setMaxRetries(-1).setWindow(8).remote();
            for (long item : stream) {
                if (item != base + n[0]++) throw wrong("generator", item + " as item " + n[0]);
                values++;
            }
            return true;
        });
        if (n[0] != 60 && !nodeDied) throw wrong("generator", n[0] + " items, not 60");
    }

    static void exceptions(long base) { // an exception is one for the caller too, whoever is killed
        for (long i = 0; i < 10; i++) {
            long x = base + i;
            attempt("exceptions", NONE, () -> {
                try {
                    throw wrong("exceptions", Ray.task(KillProgram::fails, x).setMaxRetries(-1).remote().get());
                } catch (RayTaskException e) {
                    if (!(e.getCause() instanceof IllegalStateException) || !e.getCause().getMessage().equals("it is " + x))
                        throw new IllegalStateException("another exception", e);
                    return values++;
                }
            });
        }
    }

    /** An actor and 40 calls of it, all made before the first is looked at. */
    static List<ObjectRef<Long>> calls(int restarts, int retries, boolean echo, long base) {
        List<ObjectRef<Long>> refs = new ArrayList<>();
        ActorHandle<Counter> actor = attempt("actor", NONE,
            () -> Ray.actor(Counter::new).setMaxRestarts(restarts).setMaxTaskRetries(retries).remote());
        for (long i = 0; i < 40 && actor != null; i++)
            refs.add(start("call", echo ? actor.task(Counter::echo, base + i) : actor.task(Counter::next)));
        return refs;
    }

    static void mortalActor(long base) { // 1, 2, 3, ..., then, if its worker is killed, errors to the end
        long i = 0;
        boolean dead = false;
        for (ObjectRef<Long> ref : calls(0, 0, false, base)) {
            Long value = take("mortal actor", ref, DIED);
            i++;
            if (value != null && dead) throw wrong("a dead actor answered call", i);
            if (value != null && value != i) throw wrong("mortal actor", value + ", not " + i);
            dead |= value == null;
        }
    }

    static void restartingActor(long base) { // calls are lost, never repeated; each incarnation counts from 1
        long last = 0;
        for (ObjectRef<Long> ref : calls(-1, 0, false, base)) {
            Long value = take("restarting actor", ref, RESTARTS);
            if (value == null) continue;
            if (value != last + 1 && !(WORKERS && value == 1)) throw wrong("restarting actor", value + " after " + last);
            last = value;
        }
    }

    static void immortalActor(long base) { // with restarts and retries every call is answered
        long i = 0;
        for (ObjectRef<Long> ref : calls(-1, -1, true, base)) expect("immortal actor", ref, base + i++, NONE);
    }

    // ---- the run ----
    static int rounds() throws IOException {
        List<LongConsumer> steps = new ArrayList<>(List.of(KillProgram::sums, KillProgram::withoutRetries,
            KillProgram::largeObjects, KillProgram::recursion, KillProgram::generator, KillProgram::exceptions,
            KillProgram::mortalActor, KillProgram::restartingActor, KillProgram::immortalActor));
        Random random = new Random(Long.parseLong(System.getenv().getOrDefault("KILL_SEED", "1")));
        Files.createFile(DIR.resolve("ready"));
        int rounds = 0;
        do { // each round: every step once, in an order of its own
            Collections.shuffle(steps, random);
            for (LongConsumer step : steps) step.accept(random.nextLong() >>> 20);
            rounds++;
        } while (!nodeDied && !Files.exists(DIR.resolve("stop")));
        return rounds;
    }

    public static void main(String[] args) throws IOException {
        RayConfig config = new RayConfig().setSessionDir(DIR.toString()).setNumCpus(2).setStoreBytes(8 << 20);
        Boolean there = attempt("init", NONE, () -> {
            Ray.init(config);
            return true;
        });
        if (there == null) {
            System.out.println("no cluster");
            return;
        }
        int rounds = rounds();
        attempt("shutdown", NONE, () -> {
            Ray.shutdown();
            return true;
        });
        System.out.println(rounds + " rounds, " + values + " values, " + errors + " errors" + (nodeDied ? ", the node died" : ""));
    }
}
