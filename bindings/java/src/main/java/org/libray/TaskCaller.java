package org.libray;

import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.List;

/**
 * A call that was described and not made yet: {@link #remote()} makes it. Of a function, or of an actor's method.
 *
 * @param <R> what it returns
 */
public final class TaskCaller<R> extends CallOptions<TaskCaller<R>> {
    private final Callee callee;
    private final Object[] args;

    TaskCaller(Callee callee, Object[] args) {
        this.callee = callee;
        this.args = args;
    }

    /** How often it is run again after its worker died (-1 = without limit; default 3 for functions, 0 for methods). */
    public TaskCaller<R> setMaxRetries(int retries) {
        options().retries = retries;
        return this;
    }

    /** Retries count exceptions of the function too, not only deaths of workers. */
    public TaskCaller<R> setRetryExceptions(boolean retry) {
        options().flags = retry ? options().flags | 1 : options().flags & ~1;
        return this;
    }

    /** The number of results of a function that returns a List or an array of so many: see {@link #remoteAll()}. */
    public TaskCaller<R> setNumReturns(int n) {
        options().results = n;
        return this;
    }

    /**
     * Makes the call and returns at once with a reference to its result. Arguments are copied: they may be changed afterwards. Large
     * ones go to shared memory, which may wait for room.
     *
     * @throws IllegalArgumentException if an argument cannot be sent; the message says which one and what would do
     * @throws org.libray.exception.RayException if the call cannot be made (a full queue of an actor: UNAVAILABLE, ...)
     */
    public ObjectRef<R> remote() {
        if (options != null && options.results != 1) throw new IllegalStateException("a call with several results is made by remoteAll()");
        Session session = Session.current();
        Object[] prepared = Session.prepare(args, callee.foreign, callee.name);
        long function = callee.function(session);
        try {
            return call(session, function, prepared);
        } finally {
            callee.done(function);
        }
    }

    private ObjectRef<R> call(Session session, long function, Object[] prepared) {
        Frame frame = Frame.mine().begin();
        if (callee.actor != null) frame.putText(callee.method);
        Session.write(frame, options, prepared);
        long ref = callee.actor != null ? Native.actorCall(callee.actor.handle(), frame.address())
            : Native.submit(session.runtime, function, frame.address());
        Reference.reachabilityFence(prepared);
        Reference.reachabilityFence(callee);
        return ObjectRef.adopt(frame.handle(ref), callee.type);
    }

    /** As {@link #remote()}, with as many references as {@link #setNumReturns} said; none for 0 (nobody will know how it went). */
    public List<ObjectRef<Object>> remoteAll() {
        Session session = Session.current();
        Object[] prepared = Session.prepare(args, callee.foreign, callee.name);
        long function = callee.function(session);
        try {
            return callAll(session, function, prepared);
        } finally {
            callee.done(function);
        }
    }

    private List<ObjectRef<Object>> callAll(Session session, long function, Object[] prepared) {
        Frame frame = Frame.mine().begin();
        frame.ensure(8L * options().results);
        if (callee.actor != null) frame.putText(callee.method);
        Session.write(frame, options(), prepared);
        long n = callee.actor != null ? Native.actorCallMany(callee.actor.handle(), frame.address())
            : Native.submitMany(session.runtime, function, frame.address());
        Reference.reachabilityFence(prepared);
        Reference.reachabilityFence(callee);
        if (n < 0) throw Errors.take(frame);
        frame.rewind();
        List<ObjectRef<Object>> refs = new ArrayList<>();
        for (int i = 0; i < n; i++) refs.add(ObjectRef.adopt(frame.getLong(), null));
        return refs;
    }
}
