package org.libray;

import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The functions that a worker has resolved, by their keys. A lambda that captures variables is another function for each of their
 * values, so there is no end of them: those that were not called for longest go first, and are resolved again should a call come.
 * Any thread.
 */
final class Invokers {
    private record Kept(Invoker invoker, int size) {}

    private final int most;
    private final long mostBytes;
    private final Map<Long, Kept> kept = new LinkedHashMap<>(16, 0.75f, true);
    private long bytes;

    /** At most so many, whose definitions, captured values among them, have at most so many bytes. */
    Invokers(int most, long mostBytes) {
        this.most = most;
        this.mostBytes = mostBytes;
    }

    /** Null: it has to be resolved. */
    synchronized Invoker get(long key) {
        Kept found = kept.get(key);
        return found == null ? null : found.invoker;
    }

    /** `size`: of its definition. The one that is put stays, however large, until another comes. */
    synchronized void put(long key, Invoker invoker, int size) {
        Kept before = kept.put(key, new Kept(invoker, size));
        bytes += size - (before == null ? 0 : before.size);
        Iterator<Kept> oldest = kept.values().iterator();
        while (kept.size() > 1 && (kept.size() > most || bytes > mostBytes)) {
            bytes -= oldest.next().size;
            oldest.remove();
        }
    }

    synchronized int size() {
        return kept.size();
    }
}
