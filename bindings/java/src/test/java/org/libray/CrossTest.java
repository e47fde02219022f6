package org.libray;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.libray.exception.RayException;
import org.libray.exception.RayTaskException;
import org.libray.exception.RemoteException;

/** A Java driver that calls Python and C by name. Needs the Python package: LIBRAY_PYTHON names an interpreter that has it. */
class CrossTest {
    private static final Path FUNCTIONS = Path.of(System.getProperty("libray.root", "."), "tests", "cross");

    record Point(long x, double y, String name) {}

    @BeforeAll
    static void start() {
        String python = System.getenv("LIBRAY_PYTHON");
        Assumptions.assumeTrue(python != null && Files.exists(Path.of(python)), "no Python with libray: LIBRAY_PYTHON is not set");
        Ray.init(RayConfig.fromProperties().setNumCpus(2).setCode(Language.PYTHON, FUNCTIONS.toAbsolutePath().normalize().toString()));
    }

    @AfterAll
    static void stop() {
        Ray.shutdown();
    }

    private static <R> R python(String name, Class<R> result, Object... args) {
        return Ray.task(RemoteFunction.python("cross_functions", name, result), args).remote().get();
    }

    @Test
    void values() {
        assertEquals(5L, python("add", Long.class, 2, 3));
        assertEquals(5, python("add", Integer.class, 2, 3L));
        assertEquals("Hello, ü!", python("greet", String.class, "ü"));
        Map<String, Object> map = new java.util.LinkedHashMap<>();
        map.put("a", Arrays.asList(1L, null, true, 2.5, "x"));
        map.put("big", new BigInteger("18446744073709551615"));
        map.put("bytes", new byte[] {1, 2});
        Map<?, ?> back = python("echo", Map.class, map);
        assertEquals(map.get("a"), back.get("a"));
        assertEquals(map.get("big"), back.get("big"));
        assertArrayEquals((byte[]) map.get("bytes"), (byte[]) back.get("bytes"));
        for (BigInteger fits : List.of(BigInteger.valueOf(-5), BigInteger.TEN, BigInteger.valueOf(Long.MIN_VALUE), BigInteger.ONE.shiftLeft(63)))
            assertEquals(List.of(fits), List.of(new BigInteger(python("echo", List.class, List.of(fits)).get(0).toString())));
        IllegalArgumentException big = assertThrows(IllegalArgumentException.class, () -> python("echo", Object.class, BigInteger.valueOf(Long.MIN_VALUE).subtract(BigInteger.ONE)));
        assertTrue(big.getMessage().contains("argument 1") && big.getMessage().contains("-9223372036854775809"), big.getMessage());
        assertEquals("builtins.dict", python("kind", String.class, new Point(1, 2, "p")), "a record is a map to others");
        assertEquals(new Point(1, 2, "p"), python("echo", Point.class, new Point(1, 2, "p")));
        assertEquals("datetime.datetime", python("kind", String.class, Instant.ofEpochSecond(1_700_000_000L, 5000)));
        Instant time = Instant.ofEpochSecond(1_700_000_000L, 123_456_000);
        assertEquals(time, python("echo", Instant.class, time));
        assertEquals(Arrays.asList(1L, "two"), python("pair", List.class), "a tuple");
        IllegalArgumentException e = assertThrows(IllegalArgumentException.class, () -> python("echo", Object.class, List.of(new StringBuilder())));
        for (String word : List.of("argument 1", "cross_functions.echo", "java.lang.StringBuilder")) assertTrue(e.getMessage().contains(word), e.getMessage());
    }

    @Test
    void arraysAreShared() throws Exception {
        float[] data = new float[100_000];
        Arrays.fill(data, 0.25f);
        ObjectRef<Tensor> ref = Ray.put(Tensor.of(data, 100, 1000));
        List<?> there = python("sum_and_place", List.class, ref);
        long[] here = CrossFunctions.placeOf(Native.address(ref.get().bytes()));
        assertEquals(List.of(25_000.0, here[0], here[1], false), there, "the same memory in both processes");
        assertTrue(here[0] != 0);
        assertArrayEquals(new double[] {1, 1, 1}, python("ones", double[].class, 3));
        assertEquals(100_000, python("ones", Tensor.class, 100_000).asDoubleBuffer().remaining());
    }

    @Test
    void errorsStreamsReferences() {
        RayTaskException e = assertThrows(RayTaskException.class, () -> python("fail", Object.class, "lost"));
        RemoteException cause = (RemoteException) e.getCause();
        assertEquals("python", cause.language());
        assertTrue(cause.typeName().endsWith("OwnError"), cause.typeName());
        assertTrue(cause.stack().contains("raise OwnError(text)"), cause.stack());
        assertTrue(cause.getMessage().contains("lost"));
        List<Object> items = new ArrayList<>();
        Ray.stream(RemoteFunction.python("cross_functions", "count_to", Long.class), 4).remote().forEach(items::add);
        assertEquals(List.of(0L, 1L, 2L, 3L), items);
        assertEquals(17L, python("value_of", Long.class, List.of(Ray.put(17))));
        assertEquals(3L, python("echo", Long.class, Ray.put(3)));
        RayException unknown = assertThrows(RayException.class, () -> python("nix", Object.class));
        assertEquals("UNKNOWN_FUNCTION", unknown.codeName());
    }

    @Test
    void actorsOfPython() {
        ActorHandle<Object> counter = Ray.actor(RemoteClass.python("cross_functions", "Counter"), 10).setName("python's").remote();
        assertEquals(13L, counter.call("add", Long.class, 3).remote().get());
        assertEquals(18L, python("add_to", Long.class, List.of(counter)));
        ActorHandle<Object> found = Ray.<Object>getActor("python's").orElseThrow();
        assertEquals(20L, found.call("add", Long.class, 2).remote().get());
    }

    @Test
    void recordsThatWereNotMadeForOthersCanBeReadByThem() {
        ObjectRef<Point> put = Ray.put(new Point(4, 5, "q"));
        assertEquals(new Point(4, 5, "q"), put.get());
        assertEquals("builtins.dict", python("kind", String.class, put));
    }
}
