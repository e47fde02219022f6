package org.libray.exception;

/** The process that ran the task died (WORKER_CRASHED), or was ended for want of memory (OUT_OF_MEMORY), and no retry was left. */
public class RayWorkerException extends RayException {
    private static final long serialVersionUID = 1;

    /** For libray itself. */
    public RayWorkerException(int code, String message, Throwable cause) {
        super(code, message, cause);
    }
}
