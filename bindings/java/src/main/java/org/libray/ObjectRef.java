package org.libray;

import java.io.IOException;
import java.io.Serializable;
import java.lang.ref.Reference;
import java.lang.reflect.Type;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.libray.exception.RayException;
import org.libray.exception.RayTimeoutException;

/**
 * A reference to a result that exists or will exist: a future whose value other processes can take too.
 *
 * <p>Give it to {@link Ray#task Ray.task} or a method of an actor as an argument, and the callee sees the value; inside of a list, map
 * or record it stays a reference. The object lives as long as somebody can ask for it: this reference counts until it is collected
 * or closed. All methods may be called from any thread. After {@link Ray#shutdown()} they fail with WRONG_STATE.
 *
 * @param <T> the type of the value
 */
public final class ObjectRef<T> implements Serializable, AutoCloseable {
    private static final long serialVersionUID = 1;
    private final transient Handles.Owned owned;
    private final transient Type type;

    private ObjectRef(long handle, Type type) {
        this.owned = Handles.own(this, Native.REF, handle);
        this.type = type;
    }

    /** Takes over a count. */
    static <T> ObjectRef<T> adopt(long handle, Type type) {
        return new ObjectRef<>(handle, type);
    }

    /** RayException INVALID_ARGUMENT after {@link #close()}: 0 must not reach C, which would read what no one wrote. */
    long handle() {
        long handle = owned.handle();
        if (handle == 0) throw new RayException(Native.INVALID_ARGUMENT, "the reference is closed", null);
        return handle;
    }

    Type type() {
        return type;
    }

    /** The same reference, of which more is known. */
    ObjectRef<?> withType(Type better) {
        if (better == null || better.equals(type) || type != null) return this;
        Native.refRetain(handle());
        return adopt(handle(), better);
    }

    /**
     * The value; waits for it as long as it takes. Arrays and collections are new objects at each call; {@link Tensor}s and buffers are
     * read-only views of shared memory, which stays while they can be reached.
     *
     * @throws org.libray.exception.RayException what failed: {@link org.libray.exception.RayTaskException} with the remote exception as
     *     its cause, and the other classes of that package
     * @throws org.libray.exception.RayInterruptedException if this thread is interrupted meanwhile
     * @throws IllegalArgumentException if the value cannot be read as a T
     */
    public T get() {
        return take(-1);
    }

    /** As {@link #get()}, for at most so many milliseconds; 0 = do not wait, below 0 = for ever. RayTimeoutException when they are over. */
    public T get(long timeoutMs) {
        return take(timeoutMs < 0 ? -1 : TimeUnit.MILLISECONDS.toNanos(timeoutMs));
    }

    @SuppressWarnings("unchecked")
    private T take(long timeoutNs) {
        try {
            return (T) Session.current().get(handle(), type, timeoutNs);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Whether {@link #get()} would not wait: a value or an error is there. Never blocks. */
    public boolean isReady() {
        return Ray.wait(java.util.List.of(this), 1, 0).getReady().size() == 1;
    }

    /**
     * A future that completes with the value, or exceptionally with what {@link #get()} would throw. No thread waits for it: one thread
     * of libray's completes all of them, and what depends on a future runs there unless it was attached with an "Async" method, so
     * let it not block. Cancelling the future does not cancel the task: see {@link #cancel()}.
     */
    public CompletableFuture<T> toCompletableFuture() {
        return Session.current().completions().future(this);
    }

    /** Asks for the end of the task that makes this object: queued, it never runs; running, its thread is interrupted. {@link #get()} then throws RayCancelledException. A finished task keeps its result. Returns at once. */
    public void cancel() {
        cancel(false, true);
    }

    /** As {@link #cancel()}. `force`: ends the worker's process; not for actors. `recursive`: the task's own tasks too. */
    public void cancel(boolean force, boolean recursive) {
        Frame frame = Frame.mine().begin();
        frame.check(Native.cancel(handle(), (force ? 1 : 0) | (recursive ? 2 : 0), frame.address()));
        Reference.reachabilityFence(this);
    }

    /** The object's id. */
    public Id getId() {
        Frame frame = Frame.mine().begin();
        Native.idOf(Native.REF, handle(), frame.address());
        Reference.reachabilityFence(this);
        return frame.rewind().getId();
    }

    /** Lets go of the object now rather than when this reference is collected. Later use fails with INVALID_ARGUMENT. */
    @Override
    public void close() {
        owned.close();
    }

    /** Two references are equal if they name the same object. */
    @Override
    public boolean equals(Object other) {
        return other instanceof ObjectRef && getId().equals(((ObjectRef<?>) other).getId());
    }

    @Override
    public int hashCode() {
        return getId().hashCode();
    }

    @Override
    public String toString() {
        return "ObjectRef(" + getId() + ")";
    }

    // ---- inside of values that travel by Java's serialisation

    private Object writeReplace() throws IOException {
        return new Serialised(Encoder.indexOfSerialised(this), null);
    }

    /** Stands for a reference: its index in the value. */
    static final class Serialised implements Serializable {
        private static final long serialVersionUID = 1;
        private final int index;
        private final String kind;

        Serialised(int index, String kind) {
            this.index = index;
            this.kind = kind;
        }

        private Object readResolve() throws IOException {
            ObjectRef<?> ref = Decoder.serialisedRef(index);
            return kind == null ? ref : ActorHandle.fromRef(ref);
        }
    }

    static void timedOut() {
        throw new RayTimeoutException(Native.TIMED_OUT, "the time is over", null);
    }
}
