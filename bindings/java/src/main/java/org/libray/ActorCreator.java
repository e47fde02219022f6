package org.libray;

import java.lang.ref.Reference;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * An actor that was described and not made yet: {@link #remote()} makes it.
 *
 * @param <A> its class
 */
public final class ActorCreator<A> extends CallOptions<ActorCreator<A>> {
    private final Callee callee;
    private final Object[] args;
    private final Language language;

    ActorCreator(Callee callee, Language language, Object[] args) {
        this.callee = callee;
        this.language = language;
        this.args = args;
    }

    /** The namespace of its name; default: the runtime's. */
    public ActorCreator<A> setNamespace(String ns) {
        options().ns = ns;
        return this;
    }

    /** How often it is made anew after its process died; -1 = without limit, default 0. */
    public ActorCreator<A> setMaxRestarts(int restarts) {
        options().restarts = restarts;
        return this;
    }

    /** How often a call that was lost to a restart is made again; default 0. */
    public ActorCreator<A> setMaxTaskRetries(int retries) {
        options().retries = retries;
        return this;
    }

    /** So many calls run at a time, in threads of the actor's process; default 1. Then its methods must be thread-safe, and calls do not keep their order. */
    public ActorCreator<A> setMaxConcurrency(int calls) {
        options().concurrency = calls;
        return this;
    }

    /** So many calls of this process may wait; more are refused with UNAVAILABLE. 0 = no limit. */
    public ActorCreator<A> setMaxPendingCalls(int calls) {
        options().pending = calls;
        return this;
    }

    /** It lives until it is killed, rather than until its last handle has gone. */
    public ActorCreator<A> setDetached(boolean detached) {
        options().lifetime = detached ? 1 : 0;
        return this;
    }

    /** With a name that is taken: gives that actor instead of an error. */
    public ActorCreator<A> setGetIfExists(boolean get) {
        options().flags = get ? options().flags | 1 : options().flags & ~1;
        return this;
    }

    /** A call whose arguments are there may overtake one that waits for its arguments. */
    public ActorCreator<A> setOutOfOrder(boolean allowed) {
        options().flags = allowed ? options().flags | 2 : options().flags & ~2;
        return this;
    }

    /**
     * Makes the actor and returns at once; with a name, when the name is taken. A constructor that fails shows in the first call.
     *
     * @throws IllegalArgumentException if an argument cannot be sent
     * @throws org.libray.exception.RayException ALREADY_EXISTS if the name is taken
     */
    public ActorHandle<A> remote() {
        Session session = Session.current();
        Object[] prepared = Session.prepare(args, callee.foreign, callee.name);
        long klass = callee.function(session);
        Map<String, Object> metadata = new LinkedHashMap<>();
        metadata.put("language", language.name().toLowerCase(java.util.Locale.ROOT));
        metadata.put("class", callee.name);
        metadata.put("concurrency", (long) Math.max(1, options().concurrency));
        byte[] packed = Session.messagePack(metadata);
        try {
            Frame frame = Frame.mine().begin();
            options().writeActor(frame, packed);
            Session.writeArguments(frame, prepared);
            long actor = frame.handle(Native.actorCreate(session.runtime, klass, frame.address()));
            Reference.reachabilityFence(prepared);
            return ActorHandle.adopt(actor, language.ordinal());
        } finally {
            callee.done(klass);
        }
    }
}
