package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.libray.exception.RayCancelledException;
import org.libray.exception.RayException;
import org.libray.exception.RayInterruptedException;
import org.libray.exception.RayTaskException;
import org.libray.exception.RayTimeoutException;

class CallsTest extends Cluster {
    static int square(int x) {
        return x * x;
    }

    static String join(String a, int b, double c, Long d, boolean e, List<Integer> f) {
        return a + b + c + d + e + f;
    }

    static int overloaded(int x) {
        return x + 1;
    }

    static String overloaded(String x) {
        return x + "!";
    }

    static void nothing() {}

    static int sumOf(List<ObjectRef<Integer>> refs) {
        return Ray.get(refs).stream().mapToInt(x -> x).sum();
    }

    static int fibonacci(int n) {
        if (n < 2) return n;
        ObjectRef<Integer> a = Ray.task(CallsTest::fibonacci, n - 1).remote(), b = Ray.task(CallsTest::fibonacci, n - 2).remote();
        return a.get() + b.get();
    }

    static int sleep(int ms) throws InterruptedException {
        Thread.sleep(ms);
        return ms;
    }

    static int waitForOther(List<ObjectRef<Integer>> never) {
        return never.get(0).get();
    }

    static List<Integer> pair(int x) {
        return List.of(x, x + 1);
    }

    static List<Object> halfFailed() {
        return List.of(1, Ray.failed(new IllegalStateException("this one")), 3);
    }

    static List<Object> context() {
        RuntimeContext c = Ray.getRuntimeContext();
        return List.of(c.getTaskId().toString(), c.getJobId().toString(), c.getAttempt(), c.getPid(), Ray.isInitialized());
    }

    interface Shape {
        double area();
    }

    record Square(double side) implements Shape {
        @Override
        public double area() {
            return side * side;
        }
    }

    @Test
    void methodReferencesOfAllKinds() {
        assertEquals(144, Ray.task(CallsTest::square, 12).remote().get());
        assertEquals("a12.53true[4]", Ray.task(CallsTest::join, "a", 1, 2.5, 3L, true, List.of(4)).remote().get());
        assertEquals(2, Ray.<Integer, Integer>task(CallsTest::overloaded, 1).remote().get());
        assertEquals("x!", Ray.<String, String>task(CallsTest::overloaded, "x").remote().get());
        assertEquals(3, Ray.task(String::length, "abc").remote().get(), "of the JDK, with the receiver as its argument");
        assertEquals(4.0, Ray.task(Shape::area, new Square(2)).remote().get(), "of an interface");
        assertEquals(new Square(3), Ray.task(Square::new, 3.0).remote().get(), "a constructor");
        assertNull(Ray.task(CallsTest::nothing).remote().get());
    }

    @Test
    void lambdasSendWhatTheyCapture() {
        int base = 5;
        List<String> words = new ArrayList<>(List.of("a", "b"));
        assertEquals(12, Ray.task((Integer x) -> x + base, 7).remote().get());
        assertEquals("ab", Ray.task(() -> words.stream().collect(Collectors.joining())).remote().get());
        words.add("c");
        assertEquals("ab", Ray.task(() -> "ab").remote().get());
        Object unserialisable = new Object();
        IllegalArgumentException e = assertThrows(IllegalArgumentException.class, () -> Ray.task(() -> unserialisable.toString()));
        assertTrue(e.getMessage().contains("java.lang.Object"), e.getMessage());
    }

    @Test
    void referencesAreArguments() {
        ObjectRef<Integer> three = Ray.put(3);
        ObjectRef<Integer> nine = Ray.task(CallsTest::square, three).remote();
        assertEquals(81, Ray.task(CallsTest::square, nine).remote().get());
        assertEquals(12, Ray.task(CallsTest::sumOf, List.of(three, nine)).remote().get(), "inside of a list they stay references");
    }

    @Test
    void nestedTasksOnTwoProcessors() {
        assertEquals(21, Ray.task(CallsTest::fibonacci, 8).remote().get());
    }

    @Test
    void getOfManyKeepsOrderAndDuplicates() {
        List<ObjectRef<Integer>> refs = new ArrayList<>();
        for (int i = 0; i < 3000; i++) refs.add(Ray.task(CallsTest::square, i % 100).remote());
        refs.add(refs.get(7));
        List<Integer> values = Ray.get(refs);
        for (int i = 0; i < 3000; i++) assertEquals((i % 100) * (i % 100), values.get(i));
        assertEquals(49, values.get(3000));
        assertEquals(List.of(), Ray.get(List.<ObjectRef<Integer>>of()));
    }

    @Test
    void waitTellsReadyFromUnready() {
        ObjectRef<Integer> slow = Ray.task(CallsTest::sleep, 60_000).remote(), fast = Ray.task(CallsTest::square, 2).remote();
        WaitResult<Integer> result = Ray.wait(List.of(slow, fast), 1);
        assertEquals(List.of(fast), result.getReady());
        assertEquals(List.of(slow), result.getUnready());
        assertEquals(1, Ray.wait(List.of(slow, fast), 2, 20).getReady().size(), "the time was over");
        assertThrows(IllegalArgumentException.class, () -> Ray.wait(List.of(fast, fast), 1));
        assertThrows(IllegalArgumentException.class, () -> Ray.wait(List.of(fast), 2));
        assertFalse(slow.isReady());
        assertThrows(RayTimeoutException.class, () -> slow.get(0));
        assertThrows(RayTimeoutException.class, () -> slow.get(20));
        slow.cancel(true, true);
    }

    @Test
    void severalResults() {
        List<ObjectRef<Object>> refs = Ray.task(CallsTest::pair, 4).setNumReturns(2).remoteAll();
        assertEquals(List.of(4, 5), Ray.get(refs));
        assertEquals(List.of(), Ray.task(CallsTest::pair, 4).setNumReturns(0).remoteAll());
        List<ObjectRef<Object>> wrong = Ray.task(CallsTest::pair, 4).setNumReturns(3).remoteAll();
        RayTaskException e = assertThrows(RayTaskException.class, () -> wrong.get(0).get());
        assertTrue(e.getMessage().contains("3 results"), e.getMessage());
    }

    @Test
    void oneResultOfSeveralMayFail() {
        List<ObjectRef<Object>> refs = Ray.task(CallsTest::halfFailed).setNumReturns(3).remoteAll();
        assertEquals(1, refs.get(0).get());
        assertEquals("this one", assertThrows(RayTaskException.class, () -> refs.get(1).get()).getCause().getMessage());
        assertEquals(3, refs.get(2).get());
    }

    @Test
    void futuresComplete() throws Exception {
        List<CompletableFuture<Integer>> futures = new ArrayList<>();
        for (int i = 0; i < 500; i++) futures.add(Ray.task(CallsTest::square, i).remote().toCompletableFuture());
        for (int i = 0; i < 500; i++) assertEquals(i * i, futures.get(i).get());
        CompletableFuture<Integer> failed = Ray.task(CallsTest::square, (Integer) null).remote().toCompletableFuture();
        assertInstanceOf(RayTaskException.class, assertThrows(ExecutionException.class, failed::get).getCause());
        assertInstanceOf(RayTaskException.class, assertThrows(CompletionException.class, () -> failed.thenApply(x -> x + 1).join()).getCause());
        long ours = Thread.getAllStackTraces().keySet().stream().filter(t -> t.getName().equals("libray-completions")).count();
        assertEquals(1, ours, "one thread for all of them");
    }

    @Test
    void cancelInterrupts() {
        ObjectRef<Integer> sleeping = Ray.task(CallsTest::sleep, 60_000).remote();
        ObjectRef<Integer> waiting = Ray.task(CallsTest::waitForOther, List.of(sleeping)).remote();
        Ray.wait(List.of(sleeping, waiting), 1, 300);
        waiting.cancel();
        assertThrows(RayCancelledException.class, waiting::get, "it waited for a reference");
        sleeping.cancel();
        assertThrows(RayCancelledException.class, sleeping::get, "it slept");
        assertEquals(4, Ray.task(CallsTest::square, 2).remote().get(), "the next task on that thread is not interrupted");
    }

    static int sleepWith(Object... many) throws InterruptedException {
        Thread.sleep(60_000);
        return many.length;
    }

    // Wherever the call is on its way when it is cancelled: it has many arguments, so that a worker takes a while to read them.
    @Test
    void cancelMeetsACallThatBegins() {
        RemoteFunction<Integer> sleepWith = RemoteFunction.java("org.libray.CallsTest", "sleepWith", Integer.class);
        Object[] many = java.util.stream.IntStream.range(0, 4000).mapToObj(i -> "argument " + i).toArray();
        for (int i = 0; i < 150; i++) {
            ObjectRef<Integer> ref = Ray.task(sleepWith, many).remote();
            long end = System.nanoTime() + 50_000L * (i % 50);
            while (System.nanoTime() < end) Thread.onSpinWait();
            ref.cancel();
            assertThrows(RayCancelledException.class, () -> ref.get(30_000));
        }
    }

    static class Holder {
        Holder(int x) {}
    }

    @Test
    void closedReferencesAreRefused() {
        assertEquals(49, Ray.task(CallsTest::square, 7).remote().get());
        ObjectRef<Integer> ref = Ray.put(7);
        ref.close();
        ref.close();
        for (Executable use : List.<Executable>of(() -> Ray.task(CallsTest::square, ref).remote(), () -> Ray.actor(Holder::new, ref).remote(),
            () -> Ray.put(List.of(ref)), ref::get, ref::cancel))
            assertEquals("INVALID_ARGUMENT", assertThrows(RayException.class, use).codeName());
        assertThrows(IllegalArgumentException.class, () -> Ray.wait(List.of(ref), 1, 0));
    }

    @Test
    void functionsThatCaptureAreForgotten() throws InterruptedException {
        long most = functions() + 1024; // so many that nobody uses are kept
        List<ObjectRef<Integer>> refs = new ArrayList<>();
        for (int i = 0; i < 1200; i++) {
            int captured = i;
            refs.add(Ray.task(() -> captured + 1).remote());
        }
        assertEquals(1200, Ray.get(refs).get(1199));
        refs.clear();
        for (int i = 0; functions() > most && i < 500; i++) Thread.sleep(10);
        assertTrue(functions() <= most, functions() + " are more than " + most);
    }

    private static long functions() {
        return ((Number) ((Map<?, ?>) Ray.query("process")).get("functions")).longValue();
    }

    @Test
    void interruptedThreadsStopWaiting() throws Exception {
        ObjectRef<Integer> slow = Ray.task(CallsTest::sleep, 60_000).remote();
        Throwable[] seen = new Throwable[1];
        Thread thread = new Thread(() -> {
            try {
                slow.get();
            } catch (Throwable t) {
                seen[0] = t;
            }
        });
        thread.start();
        thread.interrupt();
        thread.join();
        assertInstanceOf(RayInterruptedException.class, seen[0]);
        slow.cancel(true, false);
    }

    @Test
    void runtimeContextOfTheTask() {
        ObjectRef<List<Object>> ref = Ray.task(CallsTest::context).setName("who").remote();
        List<Object> c = ref.get();
        assertEquals(ref.getId().toString().substring(0, 40), ((String) c.get(0)).substring(0, 40), "the result's id is the task's and an index");
        assertEquals(Ray.getRuntimeContext().getJobId().toString(), c.get(1));
        assertEquals(1, c.get(2));
        assertTrue((Integer) c.get(3) != Ray.getRuntimeContext().getPid());
        assertEquals(true, c.get(4));
    }

    @Test
    void manyThreadsCall() throws Exception {
        List<Throwable> wrong = new java.util.concurrent.CopyOnWriteArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int t = 0; t < 8; t++) {
            int base = t * 1000;
            threads.add(new Thread(() -> {
                try {
                    for (int i = 0; i < 100; i++) assertEquals((base + i) * (base + i), Ray.task(CallsTest::square, base + i).remote().get());
                } catch (Throwable e) {
                    wrong.add(e);
                }
            }));
        }
        for (Thread t : threads) t.start();
        for (Thread t : threads) t.join();
        assertEquals(List.of(), wrong);
    }
}
