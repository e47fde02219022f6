package org.libray.exception;

/** The task was cancelled, or its runtime was shut down. */
public class RayCancelledException extends RayException {
    private static final long serialVersionUID = 1;

    /** For libray itself. */
    public RayCancelledException(int code, String message, Throwable cause) {
        super(code, message, cause);
    }
}
