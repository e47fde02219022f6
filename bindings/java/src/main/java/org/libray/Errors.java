package org.libray;

import java.nio.charset.StandardCharsets;
import org.libray.exception.RayActorException;
import org.libray.exception.RayCancelledException;
import org.libray.exception.RayException;
import org.libray.exception.RayObjectLostException;
import org.libray.exception.RayTaskException;
import org.libray.exception.RayTimeoutException;
import org.libray.exception.RayWorkerException;

/** Makes Java exceptions of errors of the C side. */
final class Errors {
    private Errors() {}

    /** The error that a call left in the frame; releases it. */
    static RayException take(Frame frame) {
        return of(frame.code(), frame.error());
    }

    /** An error handle (0 = none was made) as an exception; releases it. */
    static RayException of(int code, long error) {
        if (error == 0) return make(code, RayException.nameOf(code), null);
        try {
            String message = new String(Native.errorMessage(error), StandardCharsets.UTF_8);
            byte[] payload = Native.errorPayload(error);
            Throwable cause = payload.length == 0 ? null : Failures.read(payload, Native.errorFormat(error));
            return make(code, message, cause);
        } finally {
            Native.errorRelease(error);
        }
    }

    private static RayException make(int code, String message, Throwable cause) {
        switch (code) {
            case Native.TASK_FAILED:
            case Native.UNKNOWN_FUNCTION:
                return new RayTaskException(code, message, cause);
            case Native.CANCELLED:
                return new RayCancelledException(code, message, cause);
            case Native.TIMED_OUT:
                return new RayTimeoutException(code, message, cause);
            case Native.ACTOR_DIED:
            case Native.ACTOR_RESTARTING:
                return new RayActorException(code, message, cause);
            case Native.WORKER_CRASHED:
            case Native.OUT_OF_MEMORY:
                return new RayWorkerException(code, message, cause);
            case Native.OBJECT_LOST:
                return new RayObjectLostException(code, message, cause);
            default:
                return new RayException(code, message, cause);
        }
    }
}
