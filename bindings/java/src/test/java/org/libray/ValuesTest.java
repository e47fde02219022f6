package org.libray;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.Serializable;
import java.lang.ref.WeakReference;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.DoubleBuffer;
import java.nio.ReadOnlyBufferException;
import java.time.Instant;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.LinkedList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import org.junit.jupiter.api.Test;
import org.libray.exception.RayTaskException;

class ValuesTest extends Cluster {
    record Point(int x, long y, Double z, String name, List<Point> more, Map<String, int[]> arrays) {
        @Override
        public boolean equals(Object o) {
            return o instanceof Point p && x == p.x && y == p.y && Objects.equals(z, p.z) && Objects.equals(name, p.name)
                && Objects.equals(more, p.more) && (arrays == null) == (p.arrays == null)
                && (arrays == null || arrays.keySet().equals(p.arrays.keySet()) && arrays.keySet().stream().allMatch(k -> Arrays.equals(arrays.get(k), p.arrays.get(k))));
        }

        @Override
        public int hashCode() {
            return x;
        }
    }

    record Dated(LocalDate day, UUID id, Color color) {}

    enum Color { RED, GREEN }

    static final class Bean implements Serializable {
        private static final long serialVersionUID = 1;
        int value;
        Bean next;
        ObjectRef<Integer> ref;
    }

    static Object same(Object x) {
        return x;
    }

    static double[] scaled(double[] a, double by) {
        double[] b = new double[a.length];
        for (int i = 0; i < a.length; i++) b[i] = a[i] * by;
        return b;
    }

    static long bufferAddress(ByteBuffer b) {
        assertTrue(b.isDirect() && b.isReadOnly());
        return b.getLong(0);
    }

    // What comes out equals what went in, its class included: through the store, and through a task both ways.
    private static void goesThrough(Object x) {
        Object put = Ray.put(x).get();
        Object passed = Ray.task(ValuesTest::same, x).remote().get();
        for (Object y : new Object[] {put, passed}) {
            assertTrue(Objects.deepEquals(x, y), x + " became " + y);
            if (x != null && !(x instanceof List) && !(x instanceof Map) && !(x instanceof Set) && !(x instanceof java.nio.Buffer)) assertSame(x.getClass(), y.getClass());
        }
    }

    @Test
    void numbersKeepTheirClass() {
        for (int x : new int[] {0, 1, -1, 127, 128, -32, -33, 32767, 32768, -32768, -32769, 65536, Integer.MAX_VALUE, Integer.MIN_VALUE}) {
            goesThrough(x);
            goesThrough((long) x);
            goesThrough(List.of(x, (long) x, (float) x, (double) x));
        }
        for (Object x : new Object[] {Long.MAX_VALUE, Long.MIN_VALUE, 1L << 32, 0.1, 0.1f, Double.NaN, -0.0, Float.POSITIVE_INFINITY, true, false, null,
            (short) -3, (byte) 7, 'é', new BigInteger("123456789012345678901234567890"), new BigInteger("18446744073709551615"), new BigDecimal("1.10")}) {
            goesThrough(x);
            if (x != null) goesThrough(List.of(x));
        }
    }

    @Test
    void textAndBytes() {
        for (int n : new int[] {0, 1, 31, 32, 255, 256, 65535, 65536, 100_000, 2_000_000}) {
            goesThrough("ü".repeat(n));
            byte[] bytes = new byte[n];
            new Random(n).nextBytes(bytes);
            goesThrough(bytes);
        }
        goesThrough("what? 😀 \0");
        assertThrows(IllegalArgumentException.class, () -> Ray.put("\ud800"));
        assertThrows(IllegalArgumentException.class, () -> Ray.put(List.of("a\udc00")));
    }

    private static ObjectRef<?> putPacked(int... bytes) {
        byte[] packed = new byte[bytes.length];
        for (int i = 0; i < bytes.length; i++) packed[i] = (byte) bytes[i];
        return ObjectRef.adopt(Encoded.plain(Native.MSGPACK, packed).put(Session.current().runtime), null);
    }

    @Test
    void textThatIsNoUtf8IsRefused() {
        assertEquals("\ufffd", putPacked(0xa3, 0xef, 0xbf, 0xbd).get());
        assertThrows(IllegalArgumentException.class, () -> putPacked(0xa1, 0xff).get());
        assertThrows(IllegalArgumentException.class, () -> putPacked(0xd9, 2, 'a', 0xc3).get());
        assertThrows(IllegalArgumentException.class, () -> putPacked(0x91, 0xa1, 0xff).get());
    }

    @Test
    void numbersThatDoNotFitAFloatAreRefused() {
        for (Object x : new Object[] {1e300, (1L << 24) + 1, Long.MAX_VALUE, BigInteger.ONE.shiftLeft(64).subtract(BigInteger.ONE)})
            assertThrows(IllegalArgumentException.class, () -> Coerce.to(x, float.class), x::toString);
        for (Object x : new Object[] {(1L << 53) + 1, Long.MAX_VALUE, BigInteger.ONE.shiftLeft(64).subtract(BigInteger.ONE)})
            assertThrows(IllegalArgumentException.class, () -> Coerce.to(x, double.class), x::toString);
        assertEquals(0.1f, Coerce.to(0.1, float.class));
        assertEquals(Float.NEGATIVE_INFINITY, Coerce.to(Double.NEGATIVE_INFINITY, float.class));
        assertEquals(Float.NaN, Coerce.to(Double.NaN, Float.class));
        assertEquals(0x1p63, Coerce.to(BigInteger.ONE.shiftLeft(63), double.class));
        assertEquals(-0x1p63, Coerce.to(Long.MIN_VALUE, Double.class));
    }

    @Test
    void tensorsHaveTheBytesOfTheirShape() {
        assertTrue(Tensor.holds("<f8", new long[] {2, 3}, 48) && Tensor.holds("<U3", new long[] {2}, 24) && Tensor.holds("<M8[ns]", new long[0], 8));
        for (long[] shape : new long[][] {{2, 2}, {7}, {-2, -3}, {1L << 62, 4}})
            assertTrue(!Tensor.holds("<f8", shape, 48), Arrays.toString(shape));
        assertTrue(!Tensor.holds("f", new long[] {48}, 48));
        byte[] packed = {(byte) 0xc7, 8, 3, (byte) 0x93, (byte) 0xa3, '<', 'f', '8', (byte) 0x91, 2, 0};
        for (int n : new int[] {1, 2, 3}) {
            Encoded value = new Encoded(Native.MSGPACK, packed, List.of(), List.of(new double[n]));
            ObjectRef<?> ref = ObjectRef.adopt(value.put(Session.current().runtime), null);
            if (n == 2) assertEquals(Tensor.of(new double[2]), ref.get());
            else assertThrows(IllegalArgumentException.class, ref::get);
        }
    }

    // The worker lets go of arguments that nobody decoded.
    @Test
    void argumentsOfCallsThatFailAreLetGo() throws InterruptedException {
        RemoteFunction<Object> wrong = RemoteFunction.java("org.libray.ValuesTest", "nobody", Object.class);
        RemoteFunction<Object> fails = RemoteFunction.java("org.libray.ValuesTest", "wants", Object.class);
        for (int i = 0; i < 3; i++) {
            double[] large = new double[600_123]; // a size of their own in the store
            assertThrows(org.libray.exception.RayException.class, () -> Ray.task(wrong, large, large).remote().get());
            assertThrows(RayTaskException.class, () -> Ray.task(fails, 1L << 40, large).remote().get());
        }
        awaitObjects();
        List<?> pinned = List.of();
        for (int i = 0; i < 500; i++) {
            pinned = ((List<?>) Ray.query("store")).stream().filter(r -> number(((Map<?, ?>) r).get("size")) / 5000 == 8 * 600_123 / 5000).toList();
            if (pinned.isEmpty()) break;
            Thread.sleep(10);
        }
        assertEquals(List.of(), pinned);
    }

    static int wants(int x, double[] large) {
        return x + large.length;
    }

    @Test
    void recordsAndCollections() {
        Point p = new Point(1, 2L, null, "p", List.of(new Point(3, 4, 5.0, "q", null, null)), Map.of("a", new int[] {1, 2}));
        goesThrough(p);
        goesThrough(List.of(p, 1, "x"));
        goesThrough(new Dated(LocalDate.of(2020, 2, 29), new UUID(1, 2), Color.GREEN));
        goesThrough(new ArrayList<>(Arrays.asList(1, null, 2)));
        goesThrough(new HashMap<>(Map.of(1, "one", 2, "two")));
        goesThrough(Map.of("k", List.of(Map.of(true, 1.5))));
        goesThrough(new HashSet<>(List.of(1, 2)));
        goesThrough(Set.of("a"));
        goesThrough(new String[] {"a", null});
        goesThrough(new Point[] {p});
        goesThrough(new int[][] {{1}, {2, 3}});
        goesThrough(Color.RED);
        goesThrough(Instant.ofEpochSecond(1_700_000_000L, 5));
        goesThrough(Instant.parse("1900-01-01T00:00:00Z"));
        assertSame(TreeMap.class, Ray.put(new TreeMap<>(Map.of("a", 1))).get().getClass());
        assertSame(LinkedList.class, Ray.put(new LinkedList<>(List.of(1))).get().getClass());
        assertEquals(List.of("c", "a", "b"), new ArrayList<>(Ray.put(new LinkedHashSet<>(List.of("c", "a", "b"))).get()));
        Map<String, Integer> ordered = new LinkedHashMap<>();
        for (String key : List.of("z", "y", "x")) ordered.put(key, 1);
        assertEquals(List.of("z", "y", "x"), new ArrayList<>(Ray.put(ordered).get().keySet()), "the order of a LinkedHashMap");
    }

    @Test
    void primitiveArrays() {
        for (int n : new int[] {0, 1, 1000, 100_000}) {
            double[] d = new Random(n).doubles(n).toArray();
            goesThrough(d);
            goesThrough(new int[n]);
            goesThrough(new long[n]);
            goesThrough(new float[n]);
            goesThrough(new short[n]);
            goesThrough(new char[n]);
            goesThrough(new boolean[n]);
            double[] expected = Arrays.stream(d).map(x -> x * 2).toArray();
            assertArrayEquals(expected, Ray.task(ValuesTest::scaled, d, 2.0).remote().get());
        }
    }

    @Test
    void cyclesAndUserClassesGoByJavaSerialisation() {
        Bean a = new Bean(), b = new Bean();
        a.value = 5;
        a.next = b;
        b.next = a;
        a.ref = Ray.put(9);
        Bean copy = Ray.put(a).get();
        assertEquals(5, copy.value);
        assertSame(copy, copy.next.next);
        a.ref.close(); // the value keeps the object
        assertEquals(9, copy.ref.get());
        List<Object> cyclic = new ArrayList<>();
        cyclic.add(cyclic);
        List<Object> back = Ray.put(cyclic).get();
        assertSame(back, back.get(0));
        IllegalArgumentException e = assertThrows(IllegalArgumentException.class, () -> Ray.put(new Thread()));
        assertTrue(e.getMessage().contains("java.lang.Thread"), e.getMessage());
        e = assertThrows(IllegalArgumentException.class, () -> Ray.task(ValuesTest::same, (Object) List.of(new Thread())).remote());
        assertTrue(e.getMessage().contains("java.lang.Thread"), e.getMessage());
    }

    @Test
    void tensorsAndBuffersAreViews() {
        double[] data = new Random(1).doubles(60_000).toArray();
        Tensor t = Tensor.of(data, 200, 300);
        Tensor got = Ray.put(t).get();
        assertEquals(t, got);
        assertArrayEquals(new long[] {200, 300}, got.shape());
        assertTrue(got.bytes().isDirect());
        assertThrows(ReadOnlyBufferException.class, () -> got.bytes().put(0, (byte) 1));
        assertThrows(IllegalArgumentException.class, () -> Tensor.of(data, 7, 7));
        assertThrows(IllegalStateException.class, got::asFloatBuffer);
        DoubleBuffer buffer = Ray.put(DoubleBuffer.wrap(data, 10, 5)).get();
        assertEquals(5, buffer.remaining());
        assertEquals(data[12], buffer.get(2));
        assertEquals(0, Ray.put(Tensor.of(new int[0])).get().size());
        ByteBuffer bytes = ByteBuffer.allocate(100_000).order(java.nio.ByteOrder.LITTLE_ENDIAN).putLong(0, 77);
        assertEquals(77, Ray.task(ValuesTest::bufferAddress, bytes).remote().get());
        ObjectRef<Tensor> ref = Ray.put(t);
        long first = Native.address(ref.get().bytes()), second = Native.address(ref.get().bytes());
        assertEquals(first, second, "two gets show the same memory");
    }

    @Test
    void viewsKeepTheirMemoryUntilTheyAreCollected() throws Exception {
        double[] data = new Random(2).doubles(1 << 20).toArray();
        Tensor whole = Ray.put(Tensor.of(data)).get();
        DoubleBuffer part = whole.asDoubleBuffer().slice(500_000, 10);
        WeakReference<Tensor> gone = new WeakReference<>(whole);
        whole = null;
        while (gone.get() != null) System.gc();
        for (int i = 0; i < 40; i++) Ray.put(new double[1 << 20]); // would overwrite the memory, had it been let go
        for (int i = 0; i < 10; i++) assertEquals(data[500_000 + i], part.get(i));
        part = null;
        awaitObjects();
    }

    // Everything that this process referred to is let go in the end.
    private static void awaitObjects() throws InterruptedException {
        List<?> rows = List.of();
        for (int i = 0; i < 100; i++) {
            System.gc();
            Thread.sleep(20);
            rows = ((List<?>) Ray.query("references")).stream().filter(r -> number(((Map<?, ?>) r).get("size")) > 1 << 20).toList();
            if (rows.isEmpty()) return;
        }
        assertEquals(List.of(), rows);
    }

    private static long number(Object x) {
        return x == null ? 0 : ((Number) x).longValue();
    }

    @Test
    void wrongTypesAreToldAtTheCall() {
        RayTaskException e = assertThrows(RayTaskException.class, () -> Ray.task(RemoteFunction.java("org.libray.CallsTest", "square", Integer.class), 1L << 40).remote().get());
        assertTrue(e.getMessage().contains("argument 1") && e.getMessage().contains("out of range"), e.getMessage());
    }
}
