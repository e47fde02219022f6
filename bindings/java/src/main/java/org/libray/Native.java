package org.libray;

import java.nio.ByteBuffer;

/**
 * The C side, method by method as in src/main/native. Handles are numbers; questions and answers lie in a {@link Frame} whose
 * address is passed. No method throws: those that can fail give a code, or the handle 0, and leave the error in the frame.
 */
final class Native {
    static final int OK = 0, CANCELLED = 1, INVALID_ARGUMENT = 2, TIMED_OUT = 3, NOT_FOUND = 4, ALREADY_EXISTS = 5,
        OUT_OF_MEMORY = 6, UNAVAILABLE = 7, WRONG_STATE = 8, UNSUPPORTED = 9, INTERNAL = 10, CONFLICT = 11,
        TASK_FAILED = 100, WORKER_CRASHED = 101, OBJECT_LOST = 102, UNSCHEDULABLE = 103, ACTOR_DIED = 104,
        ACTOR_RESTARTING = 105, STREAM_END = 106, STORE_FULL = 107, NODE_DIED = 108, GROUP_REMOVED = 109,
        UNKNOWN_FUNCTION = 110;
    static final int RAW = 0, MSGPACK = 1, ARROW_IPC = 3, JAVA = 4;
    static final int REF = 0, ACTOR = 1, STREAM = 2, FUNCTION = 3, BUFFER = 4;
    static final int LANG_NATIVE = 0, LANG_PYTHON = 1, LANG_JAVA = 2, LANG_RUST = 3;
    static final int MODE_WORKER = 1;

    private Native() {}

    static native int apiVersion();
    static native int builtWith();
    static native long address(ByteBuffer buffer);
    static native ByteBuffer view(long address, long size);
    static native int errorCode(long error);
    static native byte[] errorMessage(long error);
    static native byte[] errorPayload(long error);
    static native int errorFormat(long error);
    static native void errorRelease(long error);
    static native boolean isRetryable(int code);
    static native long init(long frame);
    static native int mode(long runtime);
    static native byte[] sessionDir(long runtime);
    static native int shutdown(long runtime, long drainNs, long frame);
    static native void runtimeRelease(long runtime);
    static native int context(long runtime, long frame);
    static native int onWait(long runtime, long frame);

    static native void release(long pairs, int n);
    static native void refRetain(long ref);
    static native void idOf(int kind, long handle, long frame);
    static native long put(long runtime, long frame);
    static native long writerOpen(long runtime, long frame);
    static native long writerSeal(long writer, boolean wantsRef, long frame);
    static native void writerAbort(long writer);
    static native int get(long runtime, long ref, long timeoutNs, long frame, int capacity);
    static native int tryGet(long ref, long frame, int capacity);
    static native int getMany(long runtime, int n, long timeoutNs, long frame, int capacity);
    static native int wait(long runtime, int n, int want, long timeoutNs, long frame);
    static native int bufferRefs(long buffer, long frame);
    static native void bufferOob(long buffer, long frame);
    static native int cancel(long ref, int flags, long frame);
    static native long queueCreate(long runtime, long frame);
    static native void queueRelease(long queue);
    static native int onReady(long ref, long queue, long tag, long frame);
    static native int streamOnNext(long stream, long queue, long tag, long frame);
    static native int queuePoll(long queue, long timeoutNs, long frame, int capacity);

    static native long functionDefine(long runtime, int language, long frame);
    static native long functionNamed(long runtime, int language, long frame);
    static native long submit(long runtime, long function, long frame);
    static native long submitMany(long runtime, long function, long frame);
    static native long submitStream(long runtime, long function, long frame);
    static native long streamNext(long stream, long timeoutNs, long frame);
    static native long streamCompleted(long stream, long frame);
    static native int streamCancel(long stream, int flags, long frame);
    static native long actorCreate(long runtime, long klass, long frame);
    static native long actorCall(long actor, long frame);
    static native long actorCallMany(long actor, long frame);
    static native long actorCallStream(long actor, long frame);
    static native long actorFind(long runtime, long frame);
    static native int actorLanguage(long actor, long frame);
    static native int actorKill(long actor, boolean mayRestart, long frame);
    static native long actorToRef(long actor, long frame);
    static native long actorFromRef(long ref, long frame);

    static native int groupCreate(long runtime, long frame);
    static native int groupWait(long runtime, long timeoutNs, long frame);
    static native int groupRemove(long runtime, long frame);
    static native int query(long runtime, long frame, int capacity);
    static native int workerCode(long runtime, int language, long frame);
    static native int kvGet(long runtime, long frame, int capacity);
    static native int kvPut(long runtime, long expected, long frame);
    static native int kvDelete(long runtime, long expected, long frame);
    static native int kvList(long runtime, long frame, int capacity);

    static native int onInterrupt(long runtime, long frame);
    static native int next(long runtime, long timeoutNs, long frame, int capacity);
    static native void taskArgs(long task, long frame, int capacity);
    static native int taskReturn(long task, int index, long frame);
    static native int finish(long task, int code);
    static native int returnFinishNext(long runtime, long task, boolean hasValue, long timeoutNs, long frame, int capacity);
    static native long returnOpen(long task, int index, long frame);
    static native int returnError(long task, int index, int code, long frame);
    static native int fail(long task, long frame);
    static native int yield(long task, long timeoutNs, long frame);
    static native int awaitRoom(long task, long timeoutNs, long frame);
    static native boolean isCancelled(long task);
    static native int definition(long task, long frame, int capacity);
    static native int workerExit(long runtime, long frame);
    static native long workerActor(long runtime, long frame);
    static native void workerStop(long runtime);
    static native void enter(long runtime, long task);
    static native int accelerators(long task, long frame, int capacity);

    /** Called by C, on a thread of the runtime's: that task was cancelled, or (0) this worker is to end. */
    private static void interrupted(long task) {
        Worker.interrupt(task);
    }

    /** Called by C, on a thread of this process that waits for room in the object store; its frame is in use. */
    private static void waits() {
        Handles.waits();
    }
}
