package org.libray;

import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;

/** Functions and a class that other languages call by name: tests/cross/test_java.py. */
class CrossFunctions {
    record Point(long x, double y, String name) {}

    static Object echo(Object x) {
        return x;
    }

    static String kind(Object x) {
        return x == null ? "null" : x.getClass().getName();
    }

    static long add(long a, long b) {
        return a + b;
    }

    static double add(double a, double b) {
        return a + b;
    }

    static int narrow(int x) {
        return x;
    }

    static Point mirror(Point p) {
        return new Point(-p.x(), -p.y(), p.name());
    }

    static List<Point> points(int n) {
        return LongStream.range(0, n).mapToObj(i -> new Point(i, i / 2.0, "p" + i)).toList();
    }

    static Instant later(Instant t) {
        return t.plusSeconds(1);
    }

    /** The sum, and the place of the array: inode and offset of the file that is mapped there. */
    static List<Object> sum(FloatBuffer array, Tensor same) throws Exception {
        double sum = 0;
        for (FloatBuffer b = array.duplicate(); b.hasRemaining();) sum += b.get();
        long[] place = placeOf(Native.address(same.bytes()));
        return List.of(sum, place[0], place[1]);
    }

    static long[] placeOf(long address) throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/maps"))) {
            String[] words = line.split("\\s+");
            int dash = words[0].indexOf('-');
            long begin = Long.parseUnsignedLong(words[0].substring(0, dash), 16), end = Long.parseUnsignedLong(words[0].substring(dash + 1), 16);
            if (Long.compareUnsigned(begin, address) <= 0 && Long.compareUnsigned(address, end) < 0)
                return new long[] {Long.parseLong(words[4]), Long.parseUnsignedLong(words[2], 16) + address - begin};
        }
        return new long[2];
    }

    static float[] ones(int n) {
        float[] a = new float[n];
        java.util.Arrays.fill(a, 1);
        return a;
    }

    static int fail(String text) {
        throw new IllegalStateException(text, new IllegalArgumentException("behind it"));
    }

    static Object unportable() {
        return Map.of("thread", new StringBuilder("x"));
    }

    static Iterator<Long> countTo(long n) {
        return LongStream.range(0, n).iterator();
    }

    static long valueOf(List<ObjectRef<Long>> refs) {
        return refs.get(0).get();
    }

    static long useActor(List<ActorHandle<?>> actors) {
        return actors.get(0).call("add", Long.class, 5).remote().get();
    }

    static class Counter {
        private long total;

        Counter(long start) {
            total = start;
        }

        long add(long n) {
            return total += n;
        }
    }
}
