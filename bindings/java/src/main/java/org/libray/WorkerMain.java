package org.libray;

import java.util.List;
import java.util.Map;

/** The main class of workers. Not for programs: libray starts it. */
public final class WorkerMain {
    static final String REHEARSE = "--rehearse";

    private WorkerMain() {}

    /** A sample of what workers do with values, so that their classes go into the shared archive. */
    record Sample(int number, String text, List<Double> list) {}

    /** Serves tasks until the node ends this process. */
    public static void main(String[] args) {
        if (args.length == 1 && args[0].equals(REHEARSE)) {
            rehearse();
            return;
        }
        Session session = Session.open(RayConfig.fromProperties());
        if (!session.isWorker) {
            Session.close(0);
            throw new IllegalStateException("this is the main class of libray's workers; programs have one of their own");
        }
        new Worker(session).serve();
    }

    private static void rehearse() {
        NativeLoader.load();
        Object value = Map.of("sample", new Sample(1, "a", List.of(1.0)), "array", List.of(1L, "b", true));
        Encoded encoded = (Encoded) Encoder.prepare(value, false, "a sample");
        Frame frame = Frame.mine().begin();
        Encoder.write(frame, encoded);
        Encoder.writeScalar(frame, 1);
        if (!Incoming.ofBytes(encoded.format, encoded.data).decode(null).equals(value)) throw new IllegalStateException("not what was written");
        Failures.payload(new IllegalStateException("a sample"), "sample");
        Worker.rehearse();
    }
}
