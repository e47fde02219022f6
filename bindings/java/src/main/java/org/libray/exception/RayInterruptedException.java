package org.libray.exception;

/** The calling thread was interrupted while it waited, for instance because the task that it runs was cancelled. The thread's interrupt status is set again. */
public class RayInterruptedException extends RayException {
    private static final long serialVersionUID = 1;

    /** For libray itself. */
    public RayInterruptedException(String message) {
        super(1, message, null);
    }
}
