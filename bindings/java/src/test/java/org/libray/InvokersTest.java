package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.lang.invoke.MethodHandleInfo;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

/** What a worker keeps of the functions that it resolved has an end; in a node at the end, where lambdas capture much. */
class InvokersTest extends Cluster {
    private static final Invoker ABS = Invoker.of("java.lang.Math", "abs", "(I)I", MethodHandleInfo.REF_invokeStatic, new Object[0]);

    @Test
    void thoseThatWereNotCalledForLongestGo() {
        Invokers kept = new Invokers(3, 100);
        for (long key = 1; key <= 3; key++) kept.put(key, ABS, 1);
        assertSame(ABS, kept.get(1));
        kept.put(4, ABS, 1);
        assertNull(kept.get(2));
        assertNotNull(kept.get(1));
        assertEquals(3, kept.size());
    }

    @Test
    void largeOnesCountByTheirBytes() {
        Invokers kept = new Invokers(1000, 100);
        kept.put(1, ABS, 60);
        kept.put(1, ABS, 60); // again: it is one
        kept.put(2, ABS, 40);
        assertEquals(2, kept.size());
        kept.put(3, ABS, 40);
        assertNull(kept.get(1));
        assertEquals(2, kept.size());
        kept.put(4, ABS, 1000); // stays until another comes
        assertNotNull(kept.get(4));
        assertEquals(1, kept.size());
        kept.put(5, ABS, 1);
        assertNull(kept.get(4));
    }

    // Each is a function of its own to the worker: more of them than its heap of 256 MB has room for.
    @Test
    void lambdasThatCaptureMuchDoNotFillTheWorker() {
        for (int i = 0; i < 400; i++) {
            byte[] captured = new byte[1 << 20];
            Arrays.fill(captured, (byte) i);
            assertEquals((byte) i, Ray.task(() -> captured[captured.length - 1]).setResource("disk", 2).remote().get().byteValue());
        }
    }
}
