package org.libray;

import java.lang.ref.PhantomReference;
import java.lang.ref.ReferenceQueue;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Releases counts of the C side when the Java object that held them is closed or was collected. One daemon thread takes what
 * the collector found and lets go of up to 512 at a time in one native call. Any thread may register and close.
 */
final class Handles {
    private static final ReferenceQueue<Object> QUEUE = new ReferenceQueue<>();
    private static final int BATCH = 512;
    private static final Owned HEAD = new Owned();
    private static boolean started;
    private static volatile long live; // written with HEAD locked

    private Handles() {}

    /** A count that some object holds. */
    static final class Owned extends PhantomReference<Object> {
        final int kind;
        private long handle;
        private final AtomicInteger shares;
        private Owned before, after;

        private Owned() {
            super(new Object(), null);
            kind = -1;
            shares = null;
            before = after = this;
        }

        private Owned(Object owner, int kind, long handle, AtomicInteger shares) {
            super(owner, QUEUE);
            this.kind = kind;
            this.handle = handle;
            this.shares = shares;
        }

        /** The handle; 0 after it was released. */
        long handle() {
            return handle;
        }

        /** Releases now; later calls do nothing. */
        void close() {
            long mine;
            synchronized (HEAD) {
                mine = unlink();
            }
            clear();
            if (mine != 0) Handles.release(kind, mine);
        }

        // HEAD is locked. The handle if it is to be released by the caller.
        private long unlink() {
            long mine = handle;
            if (mine == 0) return 0;
            handle = 0;
            live--;
            before.after = after;
            after.before = before;
            before = after = null;
            return shares == null || shares.decrementAndGet() == 0 ? mine : 0;
        }
    }

    /** From now on the count belongs to `owner`, which must not be reachable from the result. */
    static Owned own(Object owner, int kind, long handle) {
        return link(new Owned(owner, kind, handle, null));
    }

    /** One of several owners of a count: the last to go releases it. `shares` counts them and is raised here. */
    static Owned share(Object owner, int kind, long handle, AtomicInteger shares) {
        shares.incrementAndGet();
        return link(new Owned(owner, kind, handle, shares));
    }

    private static Owned link(Owned owned) {
        synchronized (HEAD) {
            live++;
            owned.after = HEAD.after;
            owned.before = HEAD;
            HEAD.after.before = owned;
            HEAD.after = owned;
            if (!started) start();
        }
        return owned;
    }

    /** How many counts objects hold. */
    static long live() {
        return live;
    }

    /** One count, at once. */
    static void release(int kind, long handle) {
        Frame frame = Frame.mine().begin();
        frame.putLong(kind).putLong(handle);
        Native.release(frame.address() + Frame.BODY, 1);
    }

    private static void start() {
        started = true;
        Thread thread = new Thread(null, Handles::run, "libray-releases", 256 << 10);
        thread.setDaemon(true);
        thread.setPriority(Thread.MAX_PRIORITY - 2);
        thread.start();
    }

    private static void run() {
        Owned[] batch = new Owned[BATCH];
        while (true) {
            try {
                int n = 0;
                batch[n++] = (Owned) QUEUE.remove();
                while (n < BATCH) {
                    Owned next = (Owned) QUEUE.poll();
                    if (next == null) break;
                    batch[n++] = next;
                }
                releaseAll(batch, n);
            } catch (InterruptedException e) {
                // nobody interrupts this thread on purpose; what is collected still has to be let go
            }
        }
    }

    private static void releaseAll(Owned[] batch, int n) {
        Frame frame = Frame.mine().begin();
        frame.ensure(16L * n);
        int counted = 0;
        synchronized (HEAD) {
            for (int i = 0; i < n; i++) {
                long handle = batch[i].unlink();
                if (handle != 0) {
                    frame.putLong(batch[i].kind).putLong(handle);
                    counted++;
                }
                batch[i] = null;
            }
        }
        if (counted != 0) Native.release(frame.address() + Frame.BODY, counted);
    }
}
