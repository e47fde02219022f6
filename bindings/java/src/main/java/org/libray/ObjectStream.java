package org.libray;

import java.lang.ref.Reference;
import java.lang.reflect.Type;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.libray.exception.RayInterruptedException;

/**
 * The items of a generator that runs elsewhere, in order, as they are made. An iterator over the values; {@link #nextRef} gives references
 * instead. Closing it, or its collection, ends the generator. One consumer at a time; each item is given once.
 *
 * @param <T> the type of the items
 */
public final class ObjectStream<T> implements Iterator<T>, Iterable<T>, AutoCloseable {
    private final Handles.Owned owned;
    private final Type type;
    private ObjectRef<T> ahead;
    private boolean ended;

    ObjectStream(long handle, Type type) {
        this.owned = Handles.own(this, Native.STREAM, handle);
        this.type = type;
    }

    long handle() {
        return owned.handle();
    }

    /** Whether there is one more item; waits until that is known. A generator that failed has its error as its last item. */
    @Override
    public boolean hasNext() {
        if (ahead == null && !ended) ahead = take(-1);
        return ahead != null;
    }

    /** The next item; waits for it. Throws what the generator threw, as {@link ObjectRef#get} does; NoSuchElementException after the end. */
    @Override
    public T next() {
        ObjectRef<T> ref = nextRef();
        try {
            return ref.get();
        } catch (RayInterruptedException e) {
            ahead = ref; // it was not given to anybody
            throw e;
        }
    }

    /** The next item as a reference, whose value is there; waits for it. NoSuchElementException after the end. */
    public ObjectRef<T> nextRef() {
        if (!hasNext()) throw new NoSuchElementException();
        ObjectRef<T> ref = ahead;
        ahead = null;
        return ref;
    }

    /** As {@link #nextRef()}, for at most so many milliseconds: RayTimeoutException when they are over. Empty after the end. */
    public Optional<ObjectRef<T>> nextRef(long timeoutMs) {
        if (ahead == null && !ended) ahead = take(timeoutMs < 0 ? -1 : timeoutMs * 1_000_000);
        ObjectRef<T> ref = ahead;
        ahead = null;
        return Optional.ofNullable(ref);
    }

    // The next item, or null at the end.
    private ObjectRef<T> take(long timeoutNs) {
        long end = Session.endOf(timeoutNs);
        Frame frame = Frame.mine().begin();
        while (true) {
            long ref = Native.streamNext(handle(), Session.slice(end), frame.address());
            Reference.reachabilityFence(this);
            if (ref != 0) return ObjectRef.adopt(ref, type);
            if (frame.code() == Native.STREAM_END) {
                Native.errorRelease(frame.error());
                ended = true;
                return null;
            }
            Session.again(frame, frame.code(), end);
        }
    }

    /** The next item without a thread that waits: completes with it, or empty at the end. Ask for one at a time. */
    public CompletableFuture<Optional<ObjectRef<T>>> nextAsync() {
        if (ahead != null || ended) return CompletableFuture.completedFuture(nextRef(0));
        return Session.current().completions().next(this);
    }

    /** For completions: an item that is there. */
    Optional<ObjectRef<T>> nextNow() {
        return nextRef(0);
    }

    /** The remaining items as a sequential Java stream. */
    public Stream<T> stream() {
        return StreamSupport.stream(Spliterators.spliteratorUnknownSize(this, Spliterator.ORDERED), false);
    }

    /** This: for loops. The items can be gone through once. */
    @Override
    public Iterator<T> iterator() {
        return this;
    }

    /** A reference that is ready when the generator is over: null, or its error. */
    public ObjectRef<Void> completed() {
        Frame frame = Frame.mine().begin();
        long ref = frame.handle(Native.streamCompleted(handle(), frame.address()));
        Reference.reachabilityFence(this);
        return ObjectRef.adopt(ref, null);
    }

    /** Asks the generator to end: queued, it never runs; running, the next item that it makes is not taken. */
    public void cancel() {
        Frame frame = Frame.mine().begin();
        frame.check(Native.streamCancel(handle(), 0, frame.address()));
        Reference.reachabilityFence(this);
    }

    /** The id of the generator's task. */
    public Id getId() {
        Frame frame = Frame.mine().begin();
        Native.idOf(Native.STREAM, handle(), frame.address());
        Reference.reachabilityFence(this);
        return frame.rewind().getId();
    }

    /** Lets go of the stream: items that were not taken are freed and the generator is ended. */
    @Override
    public void close() {
        owned.close();
    }
}
