package org.libray.exception;

/** The actor is gone for good (ACTOR_DIED), or lost this call to a restart (ACTOR_RESTARTING, retryable). */
public class RayActorException extends RayException {
    private static final long serialVersionUID = 1;

    /** For libray itself. */
    public RayActorException(int code, String message, Throwable cause) {
        super(code, message, cause);
    }
}
