// What goes wrong elsewhere: exceptions, crashes and retries, actors that die, time limits.
import java.util.List;
import org.libray.ActorHandle;
import org.libray.ObjectRef;
import org.libray.Ray;
import org.libray.exception.RayCancelledException;
import org.libray.exception.RayTaskException;

public class FaultTolerance {
    static int parse(String text) {
        return Integer.parseInt(text);
    }

    // Kills its own process the first time; the second execution succeeds.
    static String survives() {
        if (Ray.getRuntimeContext().getAttempt() == 1) Runtime.getRuntime().halt(1);
        return "second attempt";
    }

    static class Memory {
        private int kept;

        void keep(int x) {
            kept += x;
        }

        int kept() {
            return kept;
        }

        void crash() {
            Runtime.getRuntime().halt(1);
        }
    }

    static void sleeps() throws InterruptedException {
        while (true) Thread.sleep(1000); // a cancelled task's thread is interrupted
    }

    public static void main(String[] args) {
        Ray.init();

        // An exception comes back as the cause of one that says where it came from.
        try {
            Ray.task(FaultTolerance::parse, "twelve").remote().get();
        } catch (RayTaskException e) {
            System.out.println(e.getCause());
        }

        // A worker that dies is replaced, and its task runs again.
        System.out.println(Ray.task(FaultTolerance::survives).setMaxRetries(1).remote().get());

        // An actor that dies starts again from its constructor: what it kept is gone.
        ActorHandle<Memory> memory = Ray.actor(Memory::new).setMaxRestarts(1).setMaxTaskRetries(1).remote();
        memory.task(Memory::keep, 5).remote().get();
        Ray.wait(List.of(memory.task(Memory::crash).setMaxRetries(0).remote()));
        System.out.println("kept " + memory.task(Memory::kept).remote().get());

        // Time limits and cancellation.
        ObjectRef<Void> slow = Ray.task(FaultTolerance::sleeps).remote();
        if (Ray.wait(List.of(slow), 1, 50).getReady().isEmpty()) slow.cancel();
        try {
            slow.get();
        } catch (RayCancelledException e) {
            System.out.println("cancelled");
        }

        Ray.shutdown();
    }
}
