// An object that keeps state in a process of its own: an actor. Handles can be sent to tasks, and found by name.
import java.util.ArrayList;
import java.util.List;
import org.libray.ActorHandle;
import org.libray.ObjectRef;
import org.libray.Ray;

public class ActorCounter {
    static class Counter {
        private int total;

        Counter(int start) {
            total = start;
        }

        int add(int x) {
            return total += x;
        }

        int total() {
            return total;
        }
    }

    // A task that is given a handle uses the same actor.
    static void addTenTimes(ActorHandle<Counter> counter) {
        for (int i = 0; i < 10; i++) counter.task(Counter::add, 1).remote().get();
    }

    public static void main(String[] args) {
        Ray.init();

        ActorHandle<Counter> counter = Ray.actor(Counter::new, 100).setName("visits").setMaxRestarts(1).remote();
        counter.task(Counter::add, 5).remote(); // calls run one after the other, in the order they are made

        List<ObjectRef<Void>> tasks = new ArrayList<>();
        for (int i = 0; i < 4; i++) tasks.add(Ray.task(ActorCounter::addTenTimes, counter).remote());
        Ray.get(tasks);

        ActorHandle<Counter> found = Ray.<Counter>getActor("visits").orElseThrow();
        System.out.println(found.task(Counter::total).remote().get());

        Ray.shutdown();
    }
}
