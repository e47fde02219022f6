package org.libray.exception;

/** The function failed: the cause is its exception, with the stack trace of the process where it was thrown; or the worker knows no such function. */
public class RayTaskException extends RayException {
    private static final long serialVersionUID = 1;

    /** For libray itself. */
    public RayTaskException(int code, String message, Throwable cause) {
        super(code, message, cause);
    }
}
