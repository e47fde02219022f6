package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.FloatBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** A small store that is full of what this program has dropped and the collector has not found: the heap has room for years. */
class StoreRoomTest {
    private static final int MIB = 1 << 20;
    private static final FloatBuffer BLOCK = FloatBuffer.allocate(MIB); // 4 MiB, a single one of the heap
    private static final long BOUND_MS = 120_000;

    static FloatBuffer block() {
        return FloatBuffer.allocate(MIB);
    }

    @BeforeEach
    void start() {
        Ray.init(RayConfig.fromProperties().setNumCpus(1).setStoreBytes(32 * MIB).setSpillBytes(MIB));
    }

    @AfterEach
    void stop() {
        Ray.shutdown();
    }

    private static void dropView(ObjectRef<FloatBuffer> ref) {
        assertEquals(MIB, ref.get().remaining());
        ref.close(); // the view alone keeps the memory
    }

    private static void fill() { // two further blocks would not fit
        for (int i = 0; i < 7; i++) dropView(Ray.put(BLOCK));
    }

    @Test
    void droppedReferencesMakeRoomForPuts() {
        for (int i = 0; i < 40; i++) Ray.put(BLOCK);
    }

    @Test
    void droppedViewsMakeRoomForPuts() {
        for (int i = 0; i < 40; i++) dropView(Ray.put(BLOCK));
    }

    @Test
    void droppedViewsMakeRoomForLargeArguments() {
        fill();
        ObjectRef<Integer> first = Ray.task(FloatBuffer::remaining, BLOCK).remote();
        ObjectRef<Integer> second = Ray.task(FloatBuffer::remaining, BLOCK).remote();
        assertEquals(2 * MIB, first.get(BOUND_MS) + second.get(BOUND_MS));
    }

    @Test
    void whatOneProcessDroppedMakesRoomForOthers() {
        fill();
        ObjectRef<FloatBuffer> first = Ray.task(StoreRoomTest::block).remote();
        ObjectRef<FloatBuffer> second = Ray.task(StoreRoomTest::block).remote(); // one after the other: a single CPU
        assertEquals(2 * MIB, first.get(BOUND_MS).remaining() + second.get(BOUND_MS).remaining());
    }

    @Test
    void theFiguresAreThere() {
        ObjectRef<FloatBuffer> ref = Ray.put(BLOCK);
        assertEquals(MIB, ref.get().remaining()); // so the store's daemon knows of it
        var usage = (java.util.Map<?, ?>) Ray.query("store_usage");
        assertEquals(32L * MIB, usage.get("capacity"));
        assertEquals(0L, usage.get("waiting"));
        assertTrue((Long) usage.get("used") <= 32L * MIB, usage.toString());
        ref.close();
    }
}
