package org.libray;

import java.lang.ref.Reference;

/**
 * A call of a generator that was described and not made yet: a function or method that returns an Iterator.
 *
 * @param <T> the type of the items
 */
public final class StreamCaller<T> extends CallOptions<StreamCaller<T>> {
    private final Callee callee;
    private final Object[] args;

    StreamCaller(Callee callee, Object[] args) {
        this.callee = callee;
        this.args = args;
    }

    /** How many items may wait to be taken before the generator waits; default 64. */
    public StreamCaller<T> setWindow(int items) {
        options().window = items;
        return this;
    }

    /** How often it is run again after its worker died; items that were there are not given twice. */
    public StreamCaller<T> setMaxRetries(int retries) {
        options().retries = retries;
        return this;
    }

    /** Retries count exceptions of the generator too, not only deaths of workers. */
    public StreamCaller<T> setRetryExceptions(boolean retry) {
        options().flags = retry ? options().flags | 1 : options().flags & ~1;
        return this;
    }

    /** Lets the generator run to its end though the stream was closed; what it makes from then on is dropped. */
    public StreamCaller<T> setRunToEnd(boolean toEnd) {
        options().flags = toEnd ? options().flags | 2 : options().flags & ~2;
        return this;
    }

    /** Makes the call and returns at once with the stream of its items. Errors as those of {@link TaskCaller#remote()}. */
    public ObjectStream<T> remote() {
        Session session = Session.current();
        Object[] prepared = Session.prepare(args, callee.foreign, callee.name);
        long function = callee.function(session);
        try {
            return call(session, function, prepared);
        } finally {
            callee.done(function);
        }
    }

    private ObjectStream<T> call(Session session, long function, Object[] prepared) {
        Frame frame = Frame.mine().begin();
        if (callee.actor != null) frame.putText(callee.method);
        Session.write(frame, options, prepared);
        long stream = callee.actor != null ? Native.actorCallStream(callee.actor.handle(), frame.address())
            : Native.submitStream(session.runtime, function, frame.address());
        Reference.reachabilityFence(prepared);
        Reference.reachabilityFence(callee);
        return new ObjectStream<>(frame.handle(stream), Coerce.argument(callee.type, 0));
    }
}
