package org.libray;

import java.util.concurrent.TimeUnit;
import org.libray.exception.RayException;

/** Resources that were reserved together, in bundles; see {@link Ray#createPlacementGroup}. A plain value: it may be kept, sent and compared. Any thread. */
public record PlacementGroup(Id id) {
    /** The group's id. */
    public Id getId() {
        return id;
    }

    /** Waits until its resources are reserved, at most so many seconds (below 0: for ever). False when the time is over; NOT_FOUND if the group was removed. */
    public boolean wait(int timeoutSeconds) {
        return waitMs(timeoutSeconds < 0 ? -1 : TimeUnit.SECONDS.toMillis(timeoutSeconds));
    }

    /** As {@link #wait(int)}, in milliseconds. */
    public boolean waitMs(long timeoutMs) {
        Session session = Session.current();
        long end = Session.endOf(timeoutMs < 0 ? -1 : TimeUnit.MILLISECONDS.toNanos(timeoutMs));
        while (true) {
            Frame frame = Frame.mine().begin();
            long slice = Session.slice(end);
            frame.putId(id);
            int code = Native.groupWait(session.runtime, slice, frame.address());
            if (code == Native.OK) return true;
            RayException error = Errors.take(frame);
            if (code != Native.TIMED_OUT) throw error;
            if (end != 0 && end - System.nanoTime() <= 0) return false;
        }
    }
}
