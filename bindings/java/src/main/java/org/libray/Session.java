package org.libray;

import java.lang.reflect.Type;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.libray.exception.RayException;
import org.libray.exception.RayInterruptedException;

/** One connection of this process to a node, from init to shutdown. Any thread. */
final class Session {
    // Calls that wait come back so often to see whether their thread was interrupted.
    static final long SLICE_NS = TimeUnit.MILLISECONDS.toNanos(200);
    private static volatile Session current;
    private static final Object LOOKING = new Object(); // held while a thread that no shutdown waits for uses the runtime

    final long runtime;
    final boolean isWorker;
    private Completions completions;

    private Session(long runtime) {
        this.runtime = runtime;
        this.isWorker = Native.mode(runtime) == Native.MODE_WORKER;
    }

    /** The session of this process. IllegalStateException before Ray.init and after Ray.shutdown. */
    static Session current() {
        Session session = current;
        if (session == null) throw new IllegalStateException("libray is not started: call Ray.init() first");
        return session;
    }

    static boolean isOpen() {
        return current != null;
    }

    static synchronized Session open(RayConfig config) {
        if (current != null) throw new IllegalStateException("libray is started already");
        NativeLoader.load();
        Frame frame = Frame.mine().begin();
        config.write(frame);
        Session session = new Session(frame.handle(Native.init(frame.address())));
        if (StoreRoom.IS_ON) frame.check(Native.onWait(session.runtime, frame.begin().address()));
        current = session;
        return session;
    }

    static synchronized void close(long drainNs) {
        Session session = current;
        if (session == null) return;
        Frame frame = Frame.mine().begin();
        frame.check(Native.shutdown(session.runtime, drainNs, frame.address()));
        current = null;
        Completions completions = session.completions;
        if (completions != null) completions.end();
        synchronized (LOOKING) {
            Native.runtimeRelease(session.runtime);
        }
    }

    /** How full the node's store is, by ray.h's "store_usage"; null when no session is open. Waits for nothing. */
    static Map<?, ?> storeUsage() {
        synchronized (LOOKING) {
            Session session = current;
            if (session == null) return null;
            Frame frame = Frame.mine().begin();
            frame.putText("store_usage").putBytes(new byte[0]);
            int code = Native.query(session.runtime, frame.address(), frame.capacity());
            if (code == Native.OK) return (Map<?, ?>) answer(frame.rewind());
            Native.errorRelease(frame.error()); // it is being shut down
            return null;
        }
    }

    synchronized Completions completions() {
        if (completions == null) completions = new Completions(this);
        return completions;
    }

    String directory() {
        return new String(Native.sessionDir(runtime), StandardCharsets.UTF_8);
    }

    /** A function's handle: a count of the caller's. */
    long define(int language, String name, byte[] definition) {
        Frame frame = Frame.mine().begin();
        frame.putText(name).putBytes(definition);
        return frame.handle(Native.functionDefine(runtime, language, frame.address()));
    }

    // ---- waiting

    /** How long the next slice of a wait may be; `end` 0 = for ever. Throws when the thread was interrupted. */
    static long slice(long end) {
        if (Thread.interrupted()) {
            Thread.currentThread().interrupt();
            throw new RayInterruptedException("interrupted while it waited");
        }
        return end == 0 ? SLICE_NS : Math.max(0, Math.min(SLICE_NS, end - System.nanoTime()));
    }

    static long endOf(long timeoutNs) {
        if (timeoutNs < 0) return 0;
        long end = System.nanoTime() + timeoutNs;
        return end == 0 ? 1 : end;
    }

    /** Whether a call that timed out is to be made again; else its error is thrown. */
    static boolean again(Frame frame, int code, long end) {
        if (code == Native.TIMED_OUT && (end == 0 || end - System.nanoTime() > 0)) {
            Native.errorRelease(frame.error());
            return true;
        }
        throw Errors.take(frame);
    }

    Object get(long ref, Type type, long timeoutNs) {
        Frame frame = Frame.mine().begin();
        long end = endOf(timeoutNs);
        while (true) {
            int code = Native.get(runtime, ref, slice(end), frame.address(), frame.capacity());
            if (code == Native.OK) return Incoming.resolve(Incoming.read(frame.rewind()), type);
            again(frame, code, end);
        }
    }

    /** Values of all, each of the type that its reference knows. */
    Object[] getAll(ObjectRef<?>[] refs, long timeoutNs) {
        Frame frame = Frame.mine().begin();
        int n = refs.length;
        frame.ensure((long) n * (Frame.HEADER + 24) + (8 << 10));
        for (ObjectRef<?> ref : refs) frame.putLong(ref.handle());
        long end = endOf(timeoutNs);
        int code;
        while ((code = Native.getMany(runtime, n, slice(end), frame.address(), frame.capacity())) != Native.OK) again(frame, code, end);
        frame.rewind();
        Object[] values = new Object[n];
        for (int i = 0; i < n; i++) values[i] = Incoming.read(frame);
        int i = 0;
        try {
            for (; i < n; i++) values[i] = Incoming.resolve(values[i], refs[i].type());
        } finally {
            for (i++; i < n; i++) if (values[i] instanceof Incoming) ((Incoming) values[i]).drop(); // one before could not be read
        }
        return values;
    }

    boolean[] wait(java.util.List<? extends ObjectRef<?>> refs, int want, long timeoutNs) {
        Frame frame = Frame.mine().begin();
        int n = refs.size();
        frame.ensure(8L * n);
        long end = endOf(timeoutNs);
        while (true) {
            long slice = slice(end);
            frame.begin();
            for (ObjectRef<?> ref : refs) frame.putLong(ref.handle());
            frame.check(Native.wait(runtime, n, want, slice, frame.address()));
            boolean[] ready = new boolean[n];
            int count = 0;
            for (int i = 0; i < n; i++) if (ready[i] = frame.getByteAt(Frame.BODY + i) != 0) count++;
            if (count >= want || (end != 0 && end - System.nanoTime() <= 0)) return ready;
        }
    }

    // ---- calls

    /** Arguments and options into the frame. Values that are large are put first; their references are kept in `alive`. */
    static Object[] prepare(Object[] args, boolean foreign, String callee) {
        Object[] prepared = args;
        for (int i = 0; i < args.length; i++) {
            Object x = args[i];
            if (Encoder.isScalar(x) || x instanceof ObjectRef) continue;
            if (prepared == args) prepared = args.clone();
            Object made = Encoder.prepare(x, foreign, "argument " + (i + 1) + " of " + callee);
            if (made instanceof Encoded && ((Encoded) made).isLarge()) made = ObjectRef.adopt(((Encoded) made).put(current().runtime), null);
            prepared[i] = made;
        }
        return prepared;
    }

    static void write(Frame frame, Options options, Object[] prepared) {
        if (options == null) frame.putLong(0);
        else options.write(frame);
        writeArguments(frame, prepared);
    }

    static void writeArguments(Frame frame, Object[] prepared) {
        frame.putLong(prepared.length);
        for (Object x : prepared) {
            boolean isRef = x instanceof ObjectRef;
            frame.putLong(isRef ? 1 : 0);
            if (isRef) frame.putLong(((ObjectRef<?>) x).handle());
            else Encoder.write(frame, x);
        }
    }

    /** The answer to a question about the cluster or a key, as Java values. */
    static Object answer(Frame frame) {
        return Incoming.resolve(Incoming.read(frame), null);
    }

    static byte[] messagePack(Map<String, ?> map) {
        return map == null || map.isEmpty() ? new byte[0] : ((Encoded) Encoder.prepare(new java.util.LinkedHashMap<>(map), true, "a map of options")).data;
    }

    static boolean isCode(RayException e, int code) {
        return e.code() == code;
    }
}
