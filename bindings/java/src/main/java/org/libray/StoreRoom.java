package org.libray;

import java.util.Map;

/**
 * Collects when the object store is short of room. What a program dropped still counts, and views of values still pin shared
 * memory, until the collector finds them; but it runs when the heap is full, not when the store is: a reference is a few bytes
 * of heap. java.nio has this trouble with direct memory, and the same cure. Of one thread, Handles'.
 */
final class StoreRoom {
    /** -Dlibray.gc=off: the program calls close() itself, or would rather wait. */
    static final boolean IS_ON = !"off".equals(System.getProperty("libray.gc"));

    /** Why: how long to leave the heap alone after a collection, at first and after several that found nothing. */
    private enum Need {
        OWN(100, 3_000, 4), // a call of this process waits
        OTHERS(2_000, 8_000, 20), // somebody waits, whose call fails after ten seconds
        SOON(5_000, 60_000, 20); // the store is nearly full, and there is something new to find

        final long firstNs, lastNs;
        final int share; // and that many times what the collection took

        Need(long firstMs, long lastMs, int share) {
            this.firstNs = firstMs * 1_000_000;
            this.lastNs = lastMs * 1_000_000;
            this.share = share;
        }
    }

    private boolean collected; // at all
    private long endedNs, tookNs, madeBefore;
    private long found; // since the last collection
    private int inVain; // collections in a row, before the last

    /** That many counts went because their objects were collected. */
    void released(int n) {
        found += n;
    }

    /** `own`: a call of this process waits. `made`: how many counts objects took over so far. */
    void look(boolean own, long made) {
        Map<?, ?> usage = Session.storeUsage();
        if (usage == null) return;
        boolean waits = number(usage, "waiting") != 0, nearlyFull = number(usage, "used") > number(usage, "capacity") / 5 * 4;
        if (!waits && !nearlyFull) return;
        Need need = own ? Need.OWN : waits ? Need.OTHERS : Need.SOON;
        if (need == Need.SOON && collected && made == madeBefore) return;
        if (isDue(need)) collect(made);
    }

    private static long number(Map<?, ?> usage, String name) {
        return ((Number) usage.get(name)).longValue();
    }

    private boolean isDue(Need need) {
        if (!collected) return true;
        long pauseNs = Math.min(need.lastNs, need.firstNs << (found != 0 ? 0 : Math.min(inVain + 1, 6)));
        return System.nanoTime() - endedNs >= Math.max(pauseNs, need.share * tookNs);
    }

    private void collect(long made) {
        inVain = !collected || found != 0 ? 0 : Math.min(inVain + 1, 6);
        found = 0;
        madeBefore = made;
        collected = true;
        long began = System.nanoTime();
        System.gc();
        endedNs = System.nanoTime();
        tookNs = endedNs - began;
    }
}
