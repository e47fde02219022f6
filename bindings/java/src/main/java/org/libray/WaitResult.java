package org.libray;

import java.util.List;

/**
 * What {@link Ray#wait(List, int, long)} found; immutable.
 *
 * @param <T> the type of the values
 */
public final class WaitResult<T> {
    private final List<ObjectRef<T>> ready, unready;

    WaitResult(List<ObjectRef<T>> ready, List<ObjectRef<T>> unready) {
        this.ready = List.copyOf(ready);
        this.unready = List.copyOf(unready);
    }

    /** References with a value or an error, at most as many as were asked for, in the order of the input. */
    public List<ObjectRef<T>> getReady() {
        return ready;
    }

    /** The others, in the order of the input. */
    public List<ObjectRef<T>> getUnready() {
        return unready;
    }
}
