package org.libray;

import java.util.ArrayList;
import java.util.List;

/** Where the calling thread stands: a snapshot, see {@link Ray#getRuntimeContext()}. Immutable. */
public final class RuntimeContext {
    private final Id job, node, task, actor;
    private final int pid, worker;
    private final Worker.Slot slot;

    RuntimeContext(Session session) {
        Frame frame = Frame.mine().begin();
        frame.check(Native.context(session.runtime, frame.address()));
        frame.rewind();
        job = frame.getId();
        node = frame.getId();
        task = frame.getId();
        actor = frame.getId();
        pid = frame.getInt();
        worker = frame.getInt();
        slot = Worker.current();
    }

    /** The job. */
    public Id getJobId() {
        return job;
    }

    /** The node that this process runs on. */
    public Id getNodeId() {
        return node;
    }

    /** The task that this thread runs, or the driver's; nil on a thread that runs none. */
    public Id getTaskId() {
        return task;
    }

    /** The actor that this process is; nil if it is none. */
    public Id getActorId() {
        return actor;
    }

    /** The number of this process. */
    public int getPid() {
        return pid;
    }

    /** The index of this process on its node. */
    public int getWorkerIndex() {
        return worker;
    }

    /** 1 in the first execution of the task that this thread runs, 2 in its first retry, ...; 0 in none. */
    public int getAttempt() {
        return slot == null ? 0 : slot.attempt();
    }

    /** Whether the task that this thread runs was cancelled: for loops that do not wait for anything. One load; ask again at each turn. */
    public boolean isCancelled() {
        return slot != null && slot.isCancelled();
    }

    /** Whether the actor that this process is was made anew after a death. */
    public boolean wasCurrentActorRestarted() {
        return Worker.actorAttempt() > 1;
    }

    /** The numbers of the GPUs that the task or actor has for itself; empty in a driver. */
    public List<Integer> getGpuIds() {
        List<Integer> ids = new ArrayList<>();
        if (slot == null || slot.task() == 0) return ids;
        Frame frame = Frame.mine().begin();
        frame.putText("GPU");
        int n = Native.accelerators(slot.task(), frame.address(), frame.capacity());
        frame.rewind();
        for (int i = 0; i < n; i++) ids.add(frame.getInt());
        return ids;
    }

    /** A handle of the actor that this process is. WRONG_STATE outside of an actor. */
    public <A> ActorHandle<A> getCurrentActorHandle() {
        Frame frame = Frame.mine().begin();
        return ActorHandle.adopt(frame.handle(Native.workerActor(Session.current().runtime, frame.address())), Native.LANG_JAVA);
    }
}
