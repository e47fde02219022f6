package org.libray.exception;

/** The time of a call was over; nothing else changed. */
public class RayTimeoutException extends RayException {
    private static final long serialVersionUID = 1;

    /** For libray itself. */
    public RayTimeoutException(int code, String message, Throwable cause) {
        super(code, message, cause);
    }
}
