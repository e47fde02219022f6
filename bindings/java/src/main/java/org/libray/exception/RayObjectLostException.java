package org.libray.exception;

/** Every copy of the object is gone and it cannot be made again. */
public class RayObjectLostException extends RayException {
    private static final long serialVersionUID = 1;

    /** For libray itself. */
    public RayObjectLostException(int code, String message, Throwable cause) {
        super(code, message, cause);
    }
}
