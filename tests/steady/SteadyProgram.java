// SteadyProgram.java -- Java's part of test_steady.py, which writes how many tasks to run, line by line, and measures; and of
// tests/cross/test_user_code.py, which calls ends.
import java.util.ArrayList;
import java.util.List;
import java.util.Scanner;
import org.libray.ActorHandle;
import org.libray.ObjectRef;
import org.libray.Ray;
import org.libray.RayConfig;

public class SteadyProgram {
    static long addOne(long x) {
        return x + 1;
    }

    static long ends(String how) throws Exception {
        switch (how) {
            case "throw": throw new IllegalStateException("no way on");
            case "exit": System.exit(3); return 0;
            case "segfault":
                java.lang.reflect.Field f = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe");
                f.setAccessible(true);
                Object unsafe = f.get(null);
                return (Long) unsafe.getClass().getMethod("getLong", long.class).invoke(unsafe, 8L); // nothing lies there
            default: return 1 + ends(how); // until there is no stack left
        }
    }

    static class Counter {
        private long n;

        long next() {
            return ++n;
        }
    }

    static void expectFrom(List<Long> found, long first) {
        for (long x : found)
            if (x != first++) throw new IllegalStateException("a wrong value: " + x);
    }

    public static void main(String[] args) {
        Ray.init(new RayConfig().setNumCpus(2));
        ActorHandle<Counter> counter = Ray.actor(Counter::new).remote();
        long called = 0;
        System.out.println("ready");
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLong()) {
            long n = lines.nextLong();
            for (long from = 0; from < n; from += 1000) {
                List<ObjectRef<Long>> tasks = new ArrayList<>(), calls = new ArrayList<>();
                for (long x = from; x < from + 990; x++) tasks.add(Ray.task(SteadyProgram::addOne, x).remote());
                for (int i = 0; i < 10; i++) calls.add(counter.task(Counter::next).remote());
                expectFrom(Ray.get(tasks), from + 1);
                expectFrom(Ray.get(calls), called + 1);
                called += 10;
                tasks.forEach(ObjectRef::close);
                calls.forEach(ObjectRef::close);
            }
            System.out.println("done " + n);
        }
        Ray.shutdown();
    }
}
