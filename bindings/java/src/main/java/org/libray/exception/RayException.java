package org.libray.exception;

/**
 * What every error of libray is: a code for programs, a message for people. Immutable; may be kept and thrown on another
 * thread. The subclasses say what failed; {@link #getCause} is the remote exception, where there is one.
 */
public class RayException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final String[] LOW = {"OK", "CANCELLED", "INVALID_ARGUMENT", "TIMED_OUT", "NOT_FOUND", "ALREADY_EXISTS",
        "OUT_OF_MEMORY", "UNAVAILABLE", "WRONG_STATE", "UNSUPPORTED", "INTERNAL", "CONFLICT"};
    private static final String[] HIGH = {"TASK_FAILED", "WORKER_CRASHED", "OBJECT_LOST", "UNSCHEDULABLE", "ACTOR_DIED",
        "ACTOR_RESTARTING", "STREAM_END", "STORE_FULL", "NODE_DIED", "GROUP_REMOVED", "UNKNOWN_FUNCTION"};

    /** The number of ray.h. */
    private final int code;

    /** For libray itself. */
    public RayException(int code, String message, Throwable cause) {
        super(message, cause);
        this.code = code;
    }

    /** The number of the code, as ray.h has it. */
    public int code() {
        return code;
    }

    /** The name of the code without its prefix: "TASK_FAILED". */
    public String codeName() {
        return nameOf(code);
    }

    /** Whether the same call may succeed later. */
    public boolean isRetryable() {
        return code == 3 || code == 7 || code == 11 || code == 105;
    }

    /** The name of any code, "UNKNOWN" for a number that is none. */
    public static String nameOf(int code) {
        if (code >= 0 && code < LOW.length) return LOW[code];
        if (code >= 100 && code < 100 + HIGH.length) return HIGH[code - 100];
        return "UNKNOWN";
    }
}
