package org.libray;

import java.io.IOException;
import java.io.Serializable;
import java.lang.ref.Reference;

/**
 * A handle of an actor: an object that lives in a process of its own and runs its methods one after the other (or
 * {@link ActorCreator#setMaxConcurrency several at a time}). Calls through the handles of one process run in the order in which they were
 * made. Handles may be sent to other processes inside of arguments, results and values. An actor that is not detached ends when its
 * last handle anywhere was collected or closed and its calls are done. Any thread.
 *
 * @param <A> the actor's class
 */
public final class ActorHandle<A> extends ActorCalls<A> implements Serializable, AutoCloseable {
    private static final long serialVersionUID = 1;
    private final transient Handles.Owned owned;
    private transient volatile int language; // RAY_LANG_*, or -1 before somebody asked

    private ActorHandle(long handle, int language) {
        this.owned = Handles.own(this, Native.ACTOR, handle);
        this.language = language;
    }

    /** Takes over a count. `language` -1: not known yet. */
    static <A> ActorHandle<A> adopt(long handle, int language) {
        return new ActorHandle<>(handle, language);
    }

    static ActorHandle<?> fromRef(ObjectRef<?> ref) {
        Frame frame = Frame.mine().begin();
        long actor = frame.handle(Native.actorFromRef(ref.handle(), frame.address()));
        Reference.reachabilityFence(ref);
        return adopt(actor, -1);
    }

    /** A reference that stands for this handle inside of values. */
    ObjectRef<?> toRef() {
        Frame frame = Frame.mine().begin();
        long ref = frame.handle(Native.actorToRef(handle(), frame.address()));
        Reference.reachabilityFence(this);
        return ObjectRef.adopt(ref, null);
    }

    long handle() {
        return owned.handle();
    }

    boolean isForeign() {
        if (language < 0) {
            Frame frame = Frame.mine().begin();
            int code = Native.actorLanguage(handle(), frame.address());
            Reference.reachabilityFence(this);
            if (code == Native.NOT_FOUND) { // one that is being made: the node has not heard of it yet. Ask again next time
                Native.errorRelease(frame.error());
                return false;
            }
            frame.check(code);
            language = frame.rewind().getInt();
        }
        return language != Native.LANG_JAVA;
    }

    @Override
    ActorHandle<A> actor() {
        return this;
    }

    /**
     * A call of a method by its name: for actors of other languages, or whose class is not on this class path. A wrong name shows when
     * the result is taken.
     */
    public <R> TaskCaller<R> call(String method, Class<R> result, Object... args) {
        return new TaskCaller<>(Callee.method(this, method, result), args);
    }

    /** As {@link #call}, of a generator. */
    public <T> StreamCaller<T> callStream(String method, Object... args) {
        return new StreamCaller<>(Callee.method(this, method, Object.class), args);
    }

    /** Kills the actor's process at once, for good: calls that wait or run fail with ACTOR_DIED. */
    public void kill() {
        kill(true);
    }

    /** As {@link #kill()}; with `noRestart` false the actor is made anew if it has restarts left. */
    public void kill(boolean noRestart) {
        Frame frame = Frame.mine().begin();
        frame.check(Native.actorKill(handle(), !noRestart, frame.address()));
        Reference.reachabilityFence(this);
    }

    /** The actor's id. */
    public Id getId() {
        Frame frame = Frame.mine().begin();
        Native.idOf(Native.ACTOR, handle(), frame.address());
        Reference.reachabilityFence(this);
        return frame.rewind().getId();
    }

    /** Lets go of the actor now rather than when this handle is collected. */
    @Override
    public void close() {
        owned.close();
    }

    /** Two handles are equal if they name the same actor. */
    @Override
    public boolean equals(Object other) {
        return other instanceof ActorHandle && getId().equals(((ActorHandle<?>) other).getId());
    }

    @Override
    public int hashCode() {
        return getId().hashCode();
    }

    @Override
    public String toString() {
        return "ActorHandle(" + getId() + ")";
    }

    private Object writeReplace() throws IOException {
        return new ObjectRef.Serialised(Encoder.indexOfSerialised(toRef()), "actor");
    }
}
