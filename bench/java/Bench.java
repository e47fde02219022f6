// The rows of ./dev bench that are Java's: java Bench --json FILE [--quick] [--filter TEXT]. Names as bench/c has them.
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.function.IntSupplier;
import org.libray.ActorHandle;
import org.libray.ObjectRef;
import org.libray.Ray;
import org.libray.Tensor;

public class Bench {
    static final int BATCH = 1000;
    private final List<String> rows = new ArrayList<>();
    private final String filter;
    private final boolean quick;

    private Bench(String filter, boolean quick) {
        this.filter = filter;
        this.quick = quick;
    }

    static int nothing() {
        return 0;
    }

    static class Cell {
        int n;

        int add(int x) {
            return n += x;
        }

        long pid() {
            return ProcessHandle.current().pid();
        }
    }

    private void add(String name, String unit, double[] values) {
        double mean = Arrays.stream(values).average().orElse(0);
        double deviation = Math.sqrt(Arrays.stream(values).map(v -> (v - mean) * (v - mean)).average().orElse(0));
        double[] sorted = values.clone();
        Arrays.sort(sorted);
        rows.add(String.format(Locale.ROOT, "{\"name\": \"%s\", \"language\": \"java\", \"value\": %.9g, \"unit\": \"%s\", \"deviation\": %.9g}",
            name, sorted[sorted.length / 2], unit, deviation));
    }

    // Operations per second; `once` does some and says how many. The first seconds are the compiler's.
    private void rate(String name, IntSupplier once) {
        if (!name.contains(filter)) return;
        int rounds = quick ? 2 : 5;
        double[] rates = new double[rounds];
        for (int round = quick ? -1 : -3; round < rounds; round++) {
            long began = System.nanoTime(), n = 0;
            while (System.nanoTime() - began < (quick ? 300_000_000L : 1_000_000_000L)) n += once.getAsInt();
            if (round >= 0) rates[round] = n * 1e9 / (System.nanoTime() - began);
        }
        add(name, "/s", rates);
    }

    private void tasks(ActorHandle<Cell> cell) {
        rate("tasks_batch_1000", () -> {
            List<ObjectRef<Integer>> refs = new ArrayList<>(BATCH);
            for (int i = 0; i < BATCH; i++) refs.add(Ray.task(Bench::nothing).remote());
            Ray.get(refs);
            return BATCH;
        });
        rate("tasks_one_at_a_time", () -> {
            Ray.task(Bench::nothing).remote().get();
            return 1;
        });
        rate("actor_calls_batch_1000", () -> {
            List<ObjectRef<Integer>> refs = new ArrayList<>(BATCH);
            for (int i = 0; i < BATCH; i++) refs.add(cell.task(Cell::add, 1).remote());
            Ray.get(refs);
            return BATCH;
        });
        rate("actor_calls_one_at_a_time", () -> {
            cell.task(Cell::add, 1).remote().get();
            return 1;
        });
    }

    private void values() {
        rate("put_small", () -> {
            for (int i = 0; i < BATCH; i++) Ray.put(i);
            return BATCH;
        });
        ObjectRef<Integer> small = Ray.put(1);
        rate("get_small", () -> {
            for (int i = 0; i < BATCH; i++) small.get();
            return BATCH;
        });
        ObjectRef<Tensor> large = Ray.put(Tensor.of(new double[1 << 20]));
        rate("get_large_view", () -> {
            large.get().asDoubleBuffer();
            return 1;
        });
    }

    // From the creation of an actor to its first result: the start of a process.
    private void workers() throws IOException {
        if (!"worker_start".contains(filter) && !"idle_worker_rss".contains(filter)) return;
        int n = quick ? 3 : 9;
        double[] start = new double[n], rss = new double[n], own = new double[n];
        for (int i = 0; i < n; i++) {
            long began = System.nanoTime();
            // surroundings of its own, so that no worker that waits already will do
            ActorHandle<Cell> cell = Ray.actor(Cell::new).setRuntimeEnv(java.util.Map.of("env_vars", java.util.Map.of("BENCH", "" + i))).remote();
            long pid = cell.task(Cell::pid).remote().get();
            start[i] = (System.nanoTime() - began) / 1e9;
            rss[i] = status(pid, "VmRSS:");
            own[i] = status(pid, "RssAnon:");
            cell.kill();
        }
        add("worker_start", "s", start);
        add("idle_worker_rss", "MB", rss);
        add("idle_worker_private", "MB", own);
    }

    private static double status(long pid, String field) throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/" + pid + "/status")))
            if (line.startsWith(field)) return Long.parseLong(line.replaceAll("\\D", "")) / 1024.0;
        return 0;
    }

    public static void main(String[] args) throws IOException {
        String json = "", filter = "";
        boolean quick = false;
        for (int i = 0; i < args.length; i++) {
            if (args[i].equals("--json")) json = args[++i];
            else if (args[i].equals("--filter")) filter = args[++i];
            else if (args[i].equals("--quick")) quick = true;
        }
        long began = System.nanoTime();
        Ray.init();
        Ray.task(Bench::nothing).remote().get();
        Bench bench = new Bench(filter, quick);
        double first = (System.nanoTime() - began) / 1e9;
        if ("init_to_first_result".contains(filter)) bench.add("init_to_first_result", "s", new double[] {first});
        bench.workers();
        ActorHandle<Cell> cell = Ray.actor(Cell::new).remote();
        bench.tasks(cell);
        bench.values();
        Ray.shutdown();
        String text = "[" + String.join(",\n ", bench.rows) + "]\n";
        if (json.isEmpty()) System.out.print(text);
        else Files.writeString(Path.of(json), text);
    }
}
