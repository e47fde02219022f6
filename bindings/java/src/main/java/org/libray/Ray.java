package org.libray;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.libray.exception.RayException;

/**
 * libray from Java: call a method and get a future; the method runs in another process.
 *
 * <pre>{@code
 * public class Hello {
 *   static int square(int x) { return x * x; }
 *   public static void main(String[] args) {
 *     Ray.init();
 *     ObjectRef<Integer> ref = Ray.task(Hello::square, 12).remote();
 *     System.out.println(ref.get());   // 144
 *     Ray.shutdown();
 *   }
 * }
 * }</pre>
 *
 * <p>All methods are static and may be called from any thread, in drivers and in tasks. Until {@link #init()} they throw
 * IllegalStateException. Errors of libray are {@link RayException}s.
 */
public final class Ray extends Calls {
    private static volatile Thread hook;

    private Ray() {}

    // ---- start and stop

    /** As {@link #init(RayConfig)} with what {@link RayConfig#fromProperties()} says: by default a private cluster of one node. */
    public static void init() {
        init(RayConfig.fromProperties());
    }

    /**
     * Starts a cluster of one node that ends with this process, or joins one. Blocks until it takes work, some tens of milliseconds. The
     * workers are JVMs with this process's class path. In a worker, or when it was called before, it does nothing.
     *
     * @throws RayException UNAVAILABLE if the node does not start (the message names its log)
     */
    public static synchronized void init(RayConfig config) {
        if (Session.isOpen()) return;
        Session.open(config);
        if (hook == null) {
            hook = new Thread(Ray::atExit, "libray-exit");
            Runtime.getRuntime().addShutdownHook(hook);
        }
        if (!Session.current().isWorker) {
            config.giveCode(Session.current());
            SharedClasses.prepare();
        }
    }

    private static void atExit() {
        try {
            if (Session.isOpen() && !Session.current().isWorker) Session.close(0);
        } catch (RuntimeException e) {
            // the process ends in any case, and the cluster with it
        }
    }

    /** Ends this program's part: what is not finished is cancelled, its workers end, and a cluster that {@link #init()} started too. May be followed by another init. In a task: WRONG_STATE. */
    public static void shutdown() {
        shutdown(0);
    }

    /** As {@link #shutdown()}, after waiting for submitted tasks for up to so many milliseconds (below 0: for all of them). */
    public static synchronized void shutdown(long drainMs) {
        Session.close(drainMs < 0 ? -1 : TimeUnit.MILLISECONDS.toNanos(drainMs));
    }

    /** Whether {@link #init()} was called and {@link #shutdown()} was not. True in tasks. */
    public static boolean isInitialized() {
        return Session.isOpen();
    }

    /** The directory with this session's logs, journal and sockets. */
    public static String getSessionDir() {
        return Session.current().directory();
    }

    // ---- values

    /**
     * Puts a value into the object store: others take it by the reference. Large arrays are written once, straight into shared memory;
     * Tensors and buffers are read from there without a copy. Waits for room when the store is full.
     *
     * @throws IllegalArgumentException if the value is neither a record, a collection, an array and so on, nor serialisable
     * @throws RayException STORE_FULL after 10 s without progress
     */
    public static <T> ObjectRef<T> put(T value) {
        Session session = Session.current();
        if (value instanceof ObjectRef) throw new IllegalArgumentException("a reference refers to a value already: put a list that holds it");
        Object prepared = Encoder.prepare(value, false, "the value");
        if (!(prepared instanceof Encoded)) {
            Frame frame = Frame.mine().begin();
            Encoder.writeScalar(frame, prepared);
            return ObjectRef.adopt(frame.handle(Native.put(session.runtime, frame.address())), null);
        }
        Encoded encoded = (Encoded) prepared;
        ObjectRef<T> ref = ObjectRef.adopt(encoded.put(session.runtime), null);
        java.lang.ref.Reference.reachabilityFence(encoded);
        return ref;
    }

    /** As {@link ObjectRef#get()}. */
    public static <T> T get(ObjectRef<T> ref) {
        return ref.get();
    }

    /** As {@link ObjectRef#get(long)}. */
    public static <T> T get(ObjectRef<T> ref, long timeoutMs) {
        return ref.get(timeoutMs);
    }

    /** The values of all, in order; one step for all of them. Throws as soon as one has failed, even while others are not ready. */
    public static <T> List<T> get(Collection<ObjectRef<T>> refs) {
        return get(refs, -1);
    }

    /** As {@link #get(Collection)}, for at most so many milliseconds (below 0: for ever); RayTimeoutException when they are over. */
    @SuppressWarnings("unchecked")
    public static <T> List<T> get(Collection<ObjectRef<T>> refs, long timeoutMs) {
        ObjectRef<?>[] array = refs.toArray(new ObjectRef<?>[0]);
        if (array.length == 0) return new ArrayList<>();
        Object[] values = Session.current().getAll(array, timeoutMs < 0 ? -1 : TimeUnit.MILLISECONDS.toNanos(timeoutMs));
        java.lang.ref.Reference.reachabilityFence(array);
        return (List<T>) new ArrayList<>(java.util.Arrays.asList(values));
    }

    /** Waits until all are ready. */
    public static <T> WaitResult<T> wait(List<ObjectRef<T>> refs) {
        return wait(refs, refs.size(), -1);
    }

    /** Waits until so many are ready. */
    public static <T> WaitResult<T> wait(List<ObjectRef<T>> refs, int numReturns) {
        return wait(refs, numReturns, -1);
    }

    /**
     * Waits until `numReturns` of the references have a value or an error, for at most `timeoutMs` (below 0: for ever). Fetches
     * nothing and throws no task's error. IllegalArgumentException for duplicates or a number that is not in 0..size.
     */
    public static <T> WaitResult<T> wait(List<ObjectRef<T>> refs, int numReturns, long timeoutMs) {
        if (numReturns < 0 || numReturns > refs.size()) throw new IllegalArgumentException("numReturns is " + numReturns + ", of " + refs.size() + " references");
        if (refs.isEmpty()) return new WaitResult<>(List.of(), List.of());
        boolean[] flags;
        try {
            flags = Session.current().wait(refs, numReturns, timeoutMs < 0 ? -1 : TimeUnit.MILLISECONDS.toNanos(timeoutMs));
        } catch (RayException e) {
            if (e.code() == Native.INVALID_ARGUMENT) throw new IllegalArgumentException(e.getMessage(), e);
            throw e;
        }
        List<ObjectRef<T>> ready = new ArrayList<>(), unready = new ArrayList<>();
        for (int i = 0; i < flags.length; i++) (flags[i] ? ready : unready).add(refs.get(i));
        return new WaitResult<>(ready, unready);
    }

    // ---- calls by name: see Calls for those by method reference

    /** Describes a call of a function by its name, in any language; {@link TaskCaller#remote()} makes it. Values are given in the form that all languages read. */
    public static <R> TaskCaller<R> task(RemoteFunction<R> function, Object... args) {
        return new TaskCaller<>(Callee.named(function.named), args);
    }

    /** Describes a call of a generator by its name, in any language. */
    public static <R> StreamCaller<R> stream(RemoteFunction<R> function, Object... args) {
        return new StreamCaller<>(Callee.named(function.named), args);
    }

    /** Describes an actor by the name of its class, in any language; its methods are called by {@link ActorHandle#call}. */
    public static ActorCreator<Object> actor(RemoteClass klass, Object... args) {
        return new ActorCreator<>(Callee.named(klass.named), klass.named.language(), args);
    }

    /** The living actor of that name in this program's namespace; empty if there is none. */
    public static <A> Optional<ActorHandle<A>> getActor(String name) {
        return getActor(name, "");
    }

    /** The living actor of that name and namespace; empty if there is none. */
    public static <A> Optional<ActorHandle<A>> getActor(String name, String namespace) {
        Frame frame = Frame.mine().begin();
        frame.putText(name).putText(namespace);
        long actor = Native.actorFind(Session.current().runtime, frame.address());
        if (actor != 0) return Optional.of(ActorHandle.adopt(actor, -1));
        RayException error = Errors.take(frame);
        if (error.code() == Native.NOT_FOUND) return Optional.empty();
        throw error;
    }

    /** In a method of an actor: ends the actor after this call, whose result is null. Does not return. IllegalStateException elsewhere. */
    public static void exitActor() {
        Worker.exitActor();
    }

    /**
     * For functions with several results ({@link TaskCaller#setNumReturns}): an element of the List that stands for an error of its own.
     * That result fails with this exception as its cause, while the others have their values.
     */
    public static Object failed(Throwable cause) {
        return new Worker.FailedResult(cause);
    }

    // ---- the cluster

    /** Where the calling thread stands: job, node, task, actor. */
    public static RuntimeContext getRuntimeContext() {
        return new RuntimeContext(Session.current());
    }

    /**
     * Reserves bundles of resources, all or none of them; returns at once: {@link PlacementGroup#wait} tells when they are there. It ends with
     * this program, or by {@link #removePlacementGroup}.
     */
    public static PlacementGroup createPlacementGroup(List<Map<String, Double>> bundles, PlacementStrategy strategy) {
        return createPlacementGroup(bundles, strategy, "", false);
    }

    /** As above, with a name (ALREADY_EXISTS if it is taken) and a choice to let it live until it is removed. */
    public static PlacementGroup createPlacementGroup(List<Map<String, Double>> bundles, PlacementStrategy strategy, String name, boolean detached) {
        byte[] packed = ((Encoded) Encoder.prepare(new ArrayList<Object>(bundles), true, "the bundles")).data;
        Frame frame = Frame.mine().begin();
        frame.putBytes(packed).putText(name).putText("").putInt(strategy.ordinal()).putInt(detached ? 1 : 0);
        frame.check(Native.groupCreate(Session.current().runtime, frame.address()));
        return new PlacementGroup(frame.rewind().getId());
    }

    /** Ends a placement group: what runs in it is killed, what waits to run in it fails with GROUP_REMOVED. */
    public static void removePlacementGroup(PlacementGroup group) {
        Frame frame = Frame.mine().begin();
        frame.putId(group.getId());
        frame.check(Native.groupRemove(Session.current().runtime, frame.address()));
    }

    /** The cluster's key-value store, namespace "". */
    public static KeyValue kv() {
        return kv("");
    }

    /** The cluster's key-value store, another namespace. */
    public static KeyValue kv(String namespace) {
        return new KeyValue(namespace);
    }

    /** The state of the cluster: "nodes", "resources", "available", "actors", "tasks", "objects", "workers" and what else ray.h lists. A list of maps, or a map of numbers. */
    public static Object query(String what) {
        return query(what, Map.of());
    }

    /** As above; only rows whose columns have these values; "limit" = at most so many. */
    public static Object query(String what, Map<String, ?> filter) {
        byte[] packed = Session.messagePack(filter);
        Frame frame = Frame.mine().begin();
        frame.putText(what).putBytes(packed);
        frame.check(Native.query(Session.current().runtime, frame.address(), frame.capacity()));
        return Session.answer(frame.rewind());
    }
}
