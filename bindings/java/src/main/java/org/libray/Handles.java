package org.libray;

import java.lang.ref.PhantomReference;
import java.lang.ref.ReferenceQueue;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Releases counts of the C side when the Java object that held them is closed or was collected. One daemon thread takes what
 * the collector found and lets go of up to 512 at a time in one native call. While some of them may keep something in the
 * store, it also looks after the store once a second: see StoreRoom. Any thread may register and close.
 */
final class Handles {
    private static final ReferenceQueue<Object> QUEUE = new ReferenceQueue<>();
    private static final int BATCH = 512;
    private static final long LOOK_MS = 1000;
    private static final Owned HEAD = new Owned(null);
    private static boolean started;
    private static volatile long live; // written with HEAD locked, as the next three are
    private static volatile long holding; // those of them that may keep something in the store
    private static long made; // of these, so far
    private static boolean asleep;
    private static volatile boolean waits;
    private static long idleSince = -1; // of the one thread: how many had been made when it looked last

    private Handles() {}

    /** A count that some object holds. */
    static final class Owned extends PhantomReference<Object> {
        final int kind;
        private long handle;
        private final AtomicInteger shares;
        private Owned before, after;

        // The list's head, or what wakes the thread: nobody's count.
        private Owned(ReferenceQueue<Object> queue) {
            super(new Object(), queue);
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

        private boolean mayHold() {
            return kind == Native.REF || kind == Native.STREAM || kind == Native.BUFFER;
        }

        // HEAD is locked. The handle if it is to be released by the caller.
        private long unlink() {
            long mine = handle;
            if (mine == 0) return 0;
            handle = 0;
            live--;
            if (mayHold()) holding--;
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
            if (owned.mayHold()) {
                holding++;
                made++;
            }
            owned.after = HEAD.after;
            owned.before = HEAD;
            HEAD.after.before = owned;
            HEAD.after = owned;
            if (!started) start();
            if (asleep) {
                asleep = false;
                wake();
            }
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

    /** A call of this process waits for room in the store. Uses no frame: the calling thread's is in use. */
    static void waits() {
        if (waits || holding == 0) return;
        waits = true;
        wake();
    }

    private static void wake() {
        new Owned(QUEUE).enqueue();
    }

    private static void run() {
        Owned[] batch = new Owned[BATCH];
        StoreRoom room = new StoreRoom();
        long looked = System.nanoTime();
        while (true) {
            try {
                int n = take(batch);
                if (n != 0) room.released(releaseAll(batch, n));
                long now = System.nanoTime();
                if (!waits && now - looked < LOOK_MS * 1_000_000) continue;
                boolean own = waits;
                waits = false;
                looked = now;
                if (StoreRoom.IS_ON && holding != 0) look(room, own);
            } catch (InterruptedException e) {
                // nobody interrupts this thread on purpose; what is collected still has to be let go
            }
        }
    }

    private static void look(StoreRoom room, boolean own) {
        try {
            room.look(own, made());
        } catch (RuntimeException | OutOfMemoryError e) {
            // looked at again; this thread has more to do
        }
    }

    // What was collected, after a second at most. Without one that may keep something in the store it sleeps until there is
    // one. Only after a second in which none was, so that a program of short-lived ones need not wake it for each.
    private static int take(Owned[] batch) throws InterruptedException {
        Owned next = (Owned) QUEUE.poll();
        if (next == null) next = (Owned) QUEUE.remove(LOOK_MS);
        if (next == null && mayIdle()) next = (Owned) QUEUE.remove();
        int n = 0;
        while (next != null && n < BATCH) {
            batch[n++] = next;
            next = n < BATCH ? (Owned) QUEUE.poll() : null;
        }
        return n;
    }

    private static boolean mayIdle() {
        if (!StoreRoom.IS_ON) return true;
        synchronized (HEAD) {
            asleep = holding == 0 && made == idleSince;
            idleSince = made;
            return asleep;
        }
    }

    private static long made() {
        synchronized (HEAD) {
            return made;
        }
    }

    // How many.
    private static int releaseAll(Owned[] batch, int n) {
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
        return counted;
    }
}
