package org.libray;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.libray.exception.RayException;
import org.libray.exception.RemoteException;

/** Exceptions as payloads of errors, which all languages read, and back. */
final class Failures {
    private static final int MAX_CAUSES = 16;

    private Failures() {}

    /** One line: type and message, with the place where it was thrown. */
    static String line(Throwable t, String function) {
        StackTraceElement[] trace = t.getStackTrace();
        String place = trace.length == 0 ? "" : " at " + trace[0];
        return t.getClass().getName() + ": " + t.getMessage() + " (in Java function " + function + place + ")";
    }

    /** The map that the convention of errors has. */
    static Encoded payload(Throwable t, String function) {
        Map<String, Object> map = describe(t, function, 0);
        try {
            map.put("private", List.of((long) Native.JAVA, Encoder.javaBytesWithoutRefs(t)));
        } catch (IOException | RuntimeException | StackOverflowError e) {
            map.put("unserialisable", String.valueOf(e)); // who catches it gets a RemoteException in its place
        }
        Object prepared = Encoder.prepare(map, true, "an error");
        return (Encoded) prepared;
    }

    private static Map<String, Object> describe(Throwable t, String function, int depth) {
        Map<String, Object> map = new LinkedHashMap<>();
        RemoteException remote = t instanceof RemoteException ? (RemoteException) t : null;
        map.put("language", remote != null ? remote.language() : "java");
        map.put("type", remote != null ? remote.typeName() : t.getClass().getName());
        map.put("message", clean(String.valueOf(t.getMessage())));
        map.put("stack", clean(remote != null ? remote.stack() : stackOf(t)));
        map.put("function", function);
        map.put("pid", ProcessHandle.current().pid());
        Throwable cause = t.getCause();
        if (cause != null && cause != t && depth < MAX_CAUSES) map.put("cause", describe(cause, function, depth + 1));
        return map;
    }

    private static String clean(String s) {
        return new String(s.getBytes(java.nio.charset.StandardCharsets.UTF_8), java.nio.charset.StandardCharsets.UTF_8);
    }

    private static String stackOf(Throwable t) {
        StringWriter text = new StringWriter();
        t.printStackTrace(new PrintWriter(text));
        String s = text.toString();
        return s.length() < 64 << 10 ? s : s.substring(0, 64 << 10) + "...";
    }

    /** The exception behind a payload. Never fails: what cannot be read is said in its place. */
    static Throwable read(byte[] payload, int format) {
        try {
            if (format == Native.JAVA) return (Throwable) Decoder.fromJavaBytes(payload, new ObjectRef<?>[0]);
            if (format != Native.MSGPACK)
                return new RemoteException(format == 2 ? "python" : "unknown", "error", "in a form that Java does not read", "", null);
            Object map = Incoming.ofBytes(format, payload).decode(null);
            return map instanceof Map ? fromMap((Map<?, ?>) map) : new RemoteException("unknown", "error", String.valueOf(map), "", null);
        } catch (IOException | RuntimeException | LinkageError e) {
            return new RemoteException("unknown", "error", "that could not be read: " + e, "", null);
        }
    }

    private static Throwable fromMap(Map<?, ?> map) {
        Object own = map.get("private");
        if (own instanceof List && ((List<?>) own).size() == 2 && ((Number) ((List<?>) own).get(0)).intValue() == Native.JAVA) {
            try {
                return (Throwable) Decoder.fromJavaBytes((byte[]) ((List<?>) own).get(1), new ObjectRef<?>[0]);
            } catch (IOException | RuntimeException | LinkageError e) {
                // its class is not here: the description below has to do
            }
        }
        Object cause = map.get("cause");
        String stack = text(map, "stack");
        RemoteException made = new RemoteException(text(map, "language"), text(map, "type"), text(map, "message"), stack,
            cause instanceof Map ? fromMap((Map<?, ?>) cause) : null);
        StackTraceElement[] frames = frames(stack);
        if (frames.length != 0) made.setStackTrace(frames);
        return made;
    }

    private static String text(Map<?, ?> map, String key) {
        Object x = map.get(key);
        return x == null ? "" : x.toString();
    }

    private static final Pattern FRAME = Pattern.compile("\\s+at (?:[^/()\\s]*/)?([\\w.$<>]+)\\.([\\w$<>]+)\\(([^():]+)(?::(\\d+))?\\)");

    private static StackTraceElement[] frames(String stack) {
        List<StackTraceElement> found = new ArrayList<>();
        for (String line : stack.split("\n")) {
            if (line.startsWith("Caused by")) break;
            Matcher m = FRAME.matcher(line);
            if (m.matches())
                found.add(new StackTraceElement(m.group(1), m.group(2), m.group(3), m.group(4) == null ? -1 : Integer.parseInt(m.group(4))));
        }
        return found.toArray(new StackTraceElement[0]);
    }

    /** Cuts libray's own frames and reflection's off the bottom, so that the trace ends in the user's function. */
    static void trim(Throwable t) {
        for (Throwable each = t; each != null; each = each.getCause()) {
            StackTraceElement[] trace = each.getStackTrace();
            int n = trace.length;
            while (n > 0 && isOurs(trace[n - 1])) n--;
            if (n > 0 && n < trace.length) each.setStackTrace(java.util.Arrays.copyOf(trace, n));
            if (each.getCause() == each) break;
        }
    }

    private static boolean isOurs(StackTraceElement frame) {
        String c = frame.getClassName();
        return c.startsWith("jdk.internal.reflect.") || c.startsWith("java.lang.reflect.") || c.startsWith("java.lang.invoke.")
            || c.equals("org.libray.Worker") || c.equals("org.libray.Invoker") || c.equals("org.libray.WorkerMain")
            || c.startsWith("org.libray.Worker$") || c.equals("java.lang.Thread");
    }

    static boolean isRay(Throwable t) {
        return t instanceof RayException;
    }
}
