package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.libray.exception.RayInterruptedException;
import org.libray.exception.RayTaskException;
import org.libray.exception.RayTimeoutException;

class StreamsTest extends Cluster {
    static Iterator<Integer> count(int n) {
        return IntStream.range(0, n).iterator();
    }

    static Iterator<Integer> failing(int n) {
        return Stream.iterate(0, i -> i + 1).peek(i -> {
            if (i == n) throw new IllegalStateException("item " + i);
        }).iterator();
    }

    static class Log {
        private int made;

        void make() {
            made++;
        }

        int made() {
            return made;
        }
    }

    static Iterator<byte[]> large(int n) {
        return Stream.generate(() -> new byte[100_000]).limit(n).iterator();
    }

    static Iterator<Integer> noted(ActorHandle<Log> log, int n) {
        return IntStream.range(0, n).peek(i -> log.task(Log::make).remote().get()).iterator();
    }

    static Iterator<Integer> slow() {
        return IntStream.range(0, 10).peek(i -> {
            try {
                Thread.sleep(i == 0 ? 0 : 60_000);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }).iterator();
    }

    @Test
    void itemsInOrder() {
        List<Integer> items = new ArrayList<>();
        for (int x : Ray.stream(StreamsTest::count, 1000).remote()) items.add(x);
        assertEquals(IntStream.range(0, 1000).boxed().toList(), items);
        assertEquals(45, Ray.stream(StreamsTest::count, 10).remote().stream().mapToInt(x -> x).sum());
        ObjectStream<Integer> empty = Ray.stream(StreamsTest::count, 0).remote();
        assertFalse(empty.hasNext());
        assertThrows(NoSuchElementException.class, empty::next);
        assertEquals(null, empty.completed().get());
        int n = 0;
        for (byte[] item : Ray.stream(StreamsTest::large, 20).remote()) n += item.length;
        assertEquals(2_000_000, n);
    }

    @Test
    void anInterruptLosesNoItem() {
        ObjectStream<Integer> s = Ray.stream(StreamsTest::count, 2).remote();
        assertTrue(s.hasNext());
        Thread.currentThread().interrupt();
        assertThrows(RayInterruptedException.class, s::next);
        assertTrue(Thread.interrupted());
        assertEquals(0, s.next());
        assertEquals(1, s.next());
    }

    @Test
    void anErrorIsTheLastItem() {
        ObjectStream<Integer> s = Ray.stream(StreamsTest::failing, 2).remote();
        assertEquals(0, s.next());
        assertEquals(1, s.next());
        assertTrue(s.hasNext());
        RayTaskException e = assertThrows(RayTaskException.class, s::next);
        assertInstanceOf(IllegalStateException.class, e.getCause());
        assertFalse(s.hasNext());
    }

    @Test
    void theWindowHoldsTheGeneratorBack() throws Exception {
        ActorHandle<Log> log = Ray.actor(Log::new).remote();
        ObjectStream<Integer> s = Ray.stream(StreamsTest::noted, log, 100).setWindow(3).remote();
        assertEquals(0, s.next());
        for (int i = 0; i < 30; i++) Thread.sleep(10);
        int made = log.task(Log::made).remote().get();
        assertTrue(made <= 5, made + " were made, and one was taken");
        s.close();
    }

    @Test
    void timeLimitsAndCancel() {
        ObjectStream<Integer> s = Ray.stream(StreamsTest::slow).remote();
        assertEquals(0, s.nextRef(60_000).orElseThrow().get());
        assertThrows(RayTimeoutException.class, () -> s.nextRef(10));
        s.cancel();
        while (s.hasNext()) assertThrows(Exception.class, s::next);
    }

    @Test
    void futuresOfItems() throws Exception {
        ObjectStream<Integer> s = Ray.stream(StreamsTest::count, 3).remote();
        for (int i = 0; i < 3; i++) assertEquals(i, s.nextAsync().get().orElseThrow().get());
        assertEquals(Optional.empty(), s.nextAsync().get());
    }
}
