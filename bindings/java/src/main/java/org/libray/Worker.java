package org.libray;

import java.io.IOException;
import java.lang.reflect.Array;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import org.libray.exception.RayCancelledException;
import org.libray.exception.RayException;
import org.libray.exception.RayInterruptedException;

/**
 * The worker's loop: takes tasks, runs them, gives results. One thread runs one task at a time; an actor with a concurrency of N
 * has N such threads. Nothing that user code throws ends the loop.
 */
final class Worker {
    private static final List<Slot> SLOTS = new CopyOnWriteArrayList<>();
    private static final ThreadLocal<Slot> CURRENT = new ThreadLocal<>();
    private static volatile int actorAttempt;
    private static volatile boolean ending, leaving;

    private final Session session;
    private final Invokers functions = new Invokers(1024, 16 << 20);
    private final List<Thread> threads = new CopyOnWriteArrayList<>(); // of a concurrent actor, beside the main one
    private volatile Object actor;
    private volatile Map<String, Invoker> methods = new ConcurrentHashMap<>();

    /** Ends an actor by its own will; users do not see it. */
    private static final class ActorExit extends Error {
        private static final long serialVersionUID = 1;

        ActorExit() {
            super("the actor exits", null, false, false);
        }
    }

    /** See {@link Ray#failed}. */
    record FailedResult(Throwable cause) {}

    Worker(Session session) {
        this.session = session;
    }

    /** What one thread runs. Its monitor guards that an interrupt meets the task that it is meant for. */
    static final class Slot {
        private final Thread thread = Thread.currentThread();
        private volatile long task;
        private volatile int attempt;
        private volatile String function = "";

        long task() {
            return task;
        }

        int attempt() {
            return attempt;
        }

        boolean isCancelled() {
            long running = task;
            return running != 0 && Native.isCancelled(running);
        }

        private synchronized void begin(long newTask, int newAttempt) {
            attempt = newAttempt;
            task = newTask;
        }

        private synchronized void end() {
            task = 0;
            Thread.interrupted(); // one that came too late, or that the function did not look at
        }

        private synchronized void interrupt(long which) {
            if (task == which) thread.interrupt();
        }
    }

    static Slot current() {
        return CURRENT.get();
    }

    static int actorAttempt() {
        return actorAttempt;
    }

    /** On a thread of the runtime's, which holds a lock: no word to the runtime from here. */
    static void interrupt(long task) {
        if (task == 0) return; // this worker is to end: its loops see that themselves
        for (Slot slot : SLOTS) slot.interrupt(task);
    }

    static void exitActor() {
        Slot slot = CURRENT.get();
        if (slot == null || actorAttempt == 0) throw new IllegalStateException("exitActor is for methods of an actor");
        throw new ActorExit();
    }

    void serve() {
        Frame frame = Frame.mine().begin();
        frame.check(Native.onInterrupt(session.runtime, frame.address()));
        Runtime.getRuntime().addShutdownHook(new Thread(this::exiting, "libray-exit"));
        loop();
        if (leaving) awaitOthers();
        ending = true;
        System.exit(0); // the user's shutdown hooks run
    }

    // An actor that ends by its own will starts no further call; those that run go on. After them the node's time for the end begins.
    private void awaitOthers() {
        boolean interrupted = true;
        while (interrupted) {
            interrupted = false;
            try {
                for (Thread thread : threads) thread.join();
            } catch (InterruptedException e) {
                interrupted = true; // meant for a task that is over
            }
        }
        Frame frame = Frame.mine().begin().putText("it has ended by its own will");
        if (Native.workerExit(session.runtime, frame.address()) != Native.OK) Native.errorRelease(frame.error());
    }

    private void loop() {
        Slot slot = new Slot();
        CURRENT.set(slot);
        SLOTS.add(slot);
        Frame frame = Frame.mine().begin();
        int code = Native.next(session.runtime, patience(), frame.address(), frame.capacity());
        while (true) {
            if (code == Native.OK) {
                code = new Execution(slot).run();
                continue;
            }
            frame = Frame.mine();
            Native.errorRelease(frame.error());
            if (code != Native.TIMED_OUT) return;
            collect();
            frame.begin();
            code = Native.next(session.runtime, patience(), frame.address(), frame.capacity());
        }
    }

    // References that a task had stay counted until the collector finds them, which in an idle worker is never: so one that holds
    // some, and worked since its last collection, collects when nothing came for a moment. Its heap is small, and shrinks by it.
    private static final long IDLE_NS = 200_000_000;
    private volatile boolean worked;

    private long patience() {
        return worked && Handles.live() != 0 ? IDLE_NS : -1;
    }

    private void collect() {
        worked = false;
        System.gc();
    }

    /** A concurrent actor's further threads. Its main thread is one of them. */
    private void startThreads(int n) {
        for (int i = 1; i < n; i++) {
            Thread thread = new Thread(null, this::loop, "libray-actor-" + i);
            thread.setDaemon(true);
            threads.add(thread);
            thread.start();
        }
    }

    /** One task. */
    private final class Execution {
        private final Slot slot;
        private final long task, key;
        private final int kind, results;
        private final boolean isStream, foreign;
        private final String method;
        private final Object[] args;
        private Invoker invoker;

        // Reads what is in the frame.
        Execution(Slot slot) {
            this.slot = slot;
            Frame frame = Frame.mine().rewind();
            task = frame.getLong();
            key = frame.getLong();
            kind = frame.getInt();
            int attempt = frame.getInt();
            results = frame.getInt();
            isStream = frame.getInt() != 0;
            int nArgs = frame.getInt(), methodSize = frame.getInt();
            frame.position(frame.position() + 2 * Id.SIZE);
            boolean follow = frame.getLong() != 0;
            foreign = frame.getInt() != Native.LANG_JAVA;
            concurrency = frame.getInt();
            byte[] name = new byte[methodSize];
            frame.getRaw(name, methodSize);
            frame.pad();
            method = kind == CALL ? new String(name, java.nio.charset.StandardCharsets.UTF_8) : "";
            if (!follow) {
                frame.begin().ensure((long) nArgs * (Frame.HEADER + 8) + (32 << 10));
                Native.taskArgs(task, frame.address(), frame.capacity());
                frame.rewind();
            }
            args = new Object[nArgs];
            for (int i = 0; i < nArgs; i++) args[i] = Incoming.read(frame);
            worked = true;
            slot.begin(task, attempt);
            if (kind == CREATE) actorAttempt = attempt;
        }

        private final int concurrency;

        /** Runs the task and takes the next one: its code. */
        int run() {
            try {
                if (Native.isCancelled(task)) return cancelled(); // before begin, so that no thread was interrupted
                resolve();
                if (Native.isCancelled(task)) return cancelled();
                slot.function = invoker.name;
                Object result = invoker.call(kind == CALL ? actor : null, args);
                return kind == CREATE ? created(result) : give(result);
            } catch (Throwable t) {
                dropArguments();
                return failed(t);
            }
        }

        private int cancelled() {
            dropArguments();
            return finishAndNext(Native.CANCELLED);
        }

        // Those that nobody decoded.
        private void dropArguments() {
            for (Object arg : args) if (arg instanceof Incoming) ((Incoming) arg).drop();
        }

        private void resolve() throws IOException {
            if (kind == CALL) {
                invoker = methods.get(method);
                if (invoker != null) return;
                invoker = Invoker.ofActor(actor, method, args);
                if (invoker.isOnlyOne(method, actor.getClass())) methods.put(method, invoker);
                return;
            }
            invoker = functions.get(key);
            if (invoker != null) return;
            Frame frame = Frame.mine().begin();
            frame.check(Native.definition(task, frame.address(), frame.capacity()));
            byte[] definition = (byte[]) Incoming.resolve(raw(Incoming.read(frame.rewind())), byte[].class);
            if (definition.length > 1 && definition[0] == (byte) 0x93 && definition[1] == (byte) 0xab) {
                List<?> name = (List<?>) Incoming.ofBytes(Native.MSGPACK, definition).decode(null);
                invoker = Invoker.byName((String) name.get(1), (String) name.get(2), args); // not kept: it goes by the arguments
            } else {
                invoker = Target.invoker(definition);
                functions.put(key, invoker, definition.length);
            }
        }

        // A definition is bytes, whatever format it came in.
        private Object raw(Object read) {
            if (!(read instanceof Incoming)) throw new IllegalArgumentException("a function without a definition");
            return Incoming.ofBytes(Native.RAW, ((Incoming) read).bytes());
        }

        private int created(Object made) {
            actor = made;
            methods = new ConcurrentHashMap<>();
            if (concurrency > 1) startThreads(concurrency);
            return finishAndNext(Native.OK);
        }

        private int give(Object result) throws Throwable {
            if (isStream) return giveItems(result);
            if (results == 1) return giveOne(result);
            if (results > 1) giveSeveral(result);
            return finishAndNext(Native.OK);
        }

        private int giveOne(Object result) {
            if (Native.isCancelled(task)) return finishAndNext(Native.CANCELLED);
            if (result instanceof FailedResult) {
                giveError(0, ((FailedResult) result).cause());
                return finishAndNext(Native.OK);
            }
            Object prepared = Encoder.prepare(result, foreign, "the result of " + invoker.name);
            Frame frame = Frame.mine().begin();
            if (prepared instanceof Encoded && ((Encoded) prepared).isLarge()) {
                giveLarge(0, (Encoded) prepared);
                return finishAndNext(Native.OK);
            }
            Encoder.write(frame, prepared);
            slot.end();
            int code = Native.returnFinishNext(session.runtime, task, true, patience(), frame.address(), frame.capacity());
            java.lang.ref.Reference.reachabilityFence(prepared);
            if (code != -1) return code;
            slot.begin(task, slot.attempt);
            throw Errors.take(frame);
        }

        private void giveLarge(int index, Encoded value) {
            Frame frame = Frame.mine().begin();
            value.write(frame, true);
            long writer = frame.handle(Native.returnOpen(task, index, frame.address()));
            try {
                value.fill(frame);
            } catch (Throwable t) {
                Native.writerAbort(writer);
                throw t;
            }
            Native.writerSeal(writer, false, frame.address());
            if (frame.code() != Native.OK) throw Errors.take(frame);
            java.lang.ref.Reference.reachabilityFence(value);
        }

        private void giveSeveral(Object result) {
            int n = result instanceof List ? ((List<?>) result).size() : result != null && result.getClass().isArray() ? Array.getLength(result) : -1;
            if (n != results) throw new IllegalArgumentException(invoker.name + " is to give " + results + " results, as a List or an array; it gave " + (n < 0 ? "something else" : n));
            for (int i = 0; i < n; i++) {
                Object item = result instanceof List ? ((List<?>) result).get(i) : Array.get(result, i);
                if (item instanceof FailedResult) {
                    giveError(i, ((FailedResult) item).cause());
                    continue;
                }
                Object prepared = Encoder.prepare(item, foreign, "result " + i + " of " + invoker.name);
                if (prepared instanceof Encoded && ((Encoded) prepared).isLarge()) {
                    giveLarge(i, (Encoded) prepared);
                    continue;
                }
                Frame frame = Frame.mine().begin();
                Encoder.write(frame, prepared);
                frame.check(Native.taskReturn(task, i, frame.address()));
            }
        }

        private int giveError(int index, Throwable t) {
            Failures.trim(t);
            String message = Failures.line(t, invoker.name);
            Encoded payload = Failures.payload(t, invoker.name);
            Frame frame = Frame.mine().begin();
            frame.putText(message);
            payload.write(frame, false);
            frame.check(Native.returnError(task, index, Native.TASK_FAILED, frame.address()));
            return index;
        }

        private int giveItems(Object result) {
            Iterator<?> items = iteratorOf(result);
            while (waitFor(frame -> Native.awaitRoom(task, Session.SLICE_NS, frame.address()), null) && items.hasNext()) {
                Object prepared = Encoder.prepare(items.next(), foreign, "an item of " + invoker.name);
                if (!waitFor(frame -> Native.yield(task, Session.SLICE_NS, frame.address()), prepared)) break;
            }
            return finishAndNext(Native.isCancelled(task) ? Native.CANCELLED : Native.OK);
        }

        private Iterator<?> iteratorOf(Object result) {
            if (result instanceof Iterator) return (Iterator<?>) result;
            if (result instanceof Iterable) return ((Iterable<?>) result).iterator();
            if (result instanceof java.util.stream.BaseStream) return ((java.util.stream.BaseStream<?, ?>) result).iterator();
            throw new IllegalArgumentException(invoker.name + " was called as a generator and gave no Iterator");
        }

        // Until the step went well (true) or nobody wants more (false).
        private boolean waitFor(java.util.function.ToIntFunction<Frame> step, Object prepared) {
            while (true) {
                Frame frame = Frame.mine().begin();
                if (prepared != null) Encoder.write(frame, prepared);
                else Encoder.writeScalar(frame, null);
                int code = step.applyAsInt(frame);
                if (code == Native.OK) return true;
                RayException error = Errors.take(frame);
                if (code == Native.CANCELLED) return false;
                if (code != Native.TIMED_OUT) throw error;
                if (Thread.interrupted()) throw new RayInterruptedException("cancelled while it waited for room");
            }
        }

        private int failed(Throwable t) {
            if (t instanceof ActorExit) {
                leaving = true;
                return finishAndNext(Native.ACTOR_DIED);
            }
            boolean cancelled = Native.isCancelled(task);
            slot.end();
            if (cancelled) return finishAndNext(Native.CANCELLED);
            String function = invoker == null ? method : invoker.name;
            int code = Native.TASK_FAILED;
            if (invoker == null && t instanceof RayException && ((RayException) t).code() == Native.UNKNOWN_FUNCTION) code = Native.UNKNOWN_FUNCTION;
            try {
                Failures.trim(t);
                fail(Failures.line(t, function), Failures.payload(t, function));
            } catch (Throwable again) { // memory is short, or the exception's own methods fail
                fail(t.getClass().getName() + " (in Java function " + function + ")", Encoded.plain(Native.RAW, new byte[0]));
            }
            return finishAndNext(code);
        }

        private void fail(String message, Encoded payload) {
            Frame frame = Frame.mine().begin();
            frame.putText(message);
            payload.write(frame, false);
            frame.check(Native.fail(task, frame.address()));
        }

        private int finishAndNext(int code) {
            slot.end();
            Native.finish(task, code);
            Frame frame = Frame.mine().begin();
            return Native.next(session.runtime, patience(), frame.address(), frame.capacity());
        }
    }

    private static final int CREATE = 1, CALL = 2;

    // ---- System.exit in user code

    // A shutdown hook. A thread that called System.exit waits in it for ever, so that its task may be ended from here: its caller
    // learns who did it, and where.
    private void exiting() {
        if (ending) return;
        for (Slot slot : SLOTS) {
            StackTraceElement[] trace = slot.thread.getStackTrace();
            int at = placeOfExit(trace);
            long task = slot.task;
            if (task == 0 || at < 0) continue;
            Throwable shown = new IllegalStateException("System.exit was called");
            shown.setStackTrace(Arrays.copyOfRange(trace, at, trace.length));
            Failures.trim(shown);
            Frame frame = Frame.mine().begin();
            Encoded payload = Failures.payload(shown, slot.function);
            frame.begin().putText("System.exit was called in Java function " + slot.function + " at " + (at < trace.length ? trace[at] : "an unknown place"));
            payload.write(frame, false);
            Native.fail(task, frame.address());
            Native.finish(task, actor != null ? Native.ACTOR_DIED : Native.TASK_FAILED);
        }
    }

    // The frame that called System.exit or Runtime.exit, or -1.
    private static int placeOfExit(StackTraceElement[] trace) {
        for (int i = trace.length - 1; i >= 0; i--) {
            String c = trace[i].getClassName(), m = trace[i].getMethodName();
            if (m.equals("exit") && (c.equals("java.lang.System") || c.equals("java.lang.Runtime"))) return i + 1;
        }
        return -1;
    }

    /** Loads what workers need, for the shared archive. */
    static void rehearse() {
        try {
            Invoker invoker = Invoker.of("java.lang.Math", "abs", "(I)I", java.lang.invoke.MethodHandleInfo.REF_invokeStatic, new Object[0]);
            if (!Integer.valueOf(1).equals(invoker.call(null, new Object[] {-1}))) throw new IllegalStateException("abs");
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }
}
