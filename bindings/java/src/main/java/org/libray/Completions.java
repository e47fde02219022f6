package org.libray;

import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import org.libray.exception.RayCancelledException;

/** Completes futures: one queue of the C side and one daemon thread, however many futures wait. */
final class Completions {
    private final Session session;
    private final long queue;
    private final AtomicLong tags = new AtomicLong();
    private final Map<Long, Runnable> waiting = new ConcurrentHashMap<>();
    private final Map<Long, CompletableFuture<?>> futures = new ConcurrentHashMap<>();
    private final Thread thread;

    Completions(Session session) {
        this.session = session;
        Frame frame = Frame.mine().begin();
        queue = frame.handle(Native.queueCreate(session.runtime, frame.address()));
        thread = new Thread(null, this::run, "libray-completions");
        thread.setDaemon(true);
        thread.start();
    }

    <T> CompletableFuture<T> future(ObjectRef<T> ref) {
        CompletableFuture<T> future = new CompletableFuture<>();
        long tag = register(future, () -> future.complete(ref.get()));
        Frame frame = Frame.mine().begin();
        registered(tag, frame, Native.onReady(ref.handle(), queue, tag, frame.address()));
        java.lang.ref.Reference.reachabilityFence(ref);
        return future;
    }

    <T> CompletableFuture<Optional<ObjectRef<T>>> next(ObjectStream<T> stream) {
        CompletableFuture<Optional<ObjectRef<T>>> future = new CompletableFuture<>();
        long tag = register(future, () -> future.complete(stream.nextNow()));
        Frame frame = Frame.mine().begin();
        registered(tag, frame, Native.streamOnNext(stream.handle(), queue, tag, frame.address()));
        java.lang.ref.Reference.reachabilityFence(stream);
        return future;
    }

    private long register(CompletableFuture<?> future, Runnable complete) {
        long tag = tags.incrementAndGet();
        futures.put(tag, future);
        waiting.put(tag, complete);
        return tag;
    }

    private void registered(long tag, Frame frame, int code) {
        if (code == Native.OK) return;
        waiting.remove(tag);
        futures.remove(tag);
        throw Errors.take(frame);
    }

    private void run() {
        while (true) {
            Frame frame = Frame.mine().begin();
            int code = Native.queuePoll(queue, -1, frame.address(), frame.capacity());
            if (code != Native.OK) {
                Native.errorRelease(frame.error());
                if (code == Native.TIMED_OUT) continue;
                break; // the runtime was shut down
            }
            frame.rewind();
            long[] tags = new long[(int) frame.getLong()];
            for (int i = 0; i < tags.length; i++) tags[i] = frame.getLong();
            for (long tag : tags) complete(tag);
        }
        // Before this process's last word to them: nothing comes any more.
        for (CompletableFuture<?> future : futures.values())
            future.completeExceptionally(new RayCancelledException(Native.CANCELLED, "the runtime was shut down", null));
        Native.queueRelease(queue);
    }

    private void complete(long tag) {
        Runnable what = waiting.remove(tag);
        CompletableFuture<?> future = futures.remove(tag);
        if (what == null) return;
        try {
            what.run();
        } catch (Throwable t) {
            future.completeExceptionally(t);
        }
    }

    /** After the shutdown: lets the thread finish what came. */
    void end() {
        if (Thread.currentThread() == thread) return;
        try {
            thread.join(5000);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
