package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.libray.exception.RayActorException;
import org.libray.exception.RayException;
import org.libray.exception.RayTaskException;

class ActorsTest extends Cluster {
    static class Base {
        int total;

        int total() {
            return total;
        }
    }

    static class Counter extends Base {
        Counter(int start) {
            total = start;
        }

        int add(int x) {
            return total += x;
        }

        int add(int x, int y) {
            return total += x + y;
        }

        Iterator<Integer> upTo(int n) {
            return IntStream.range(total, total + n).iterator();
        }

        int fail(String why) {
            throw new IllegalStateException(why);
        }

        int pid() {
            return (int) ProcessHandle.current().pid();
        }

        void crash() {
            Runtime.getRuntime().halt(1);
        }

        int leave() {
            Ray.exitActor();
            return 1;
        }

        boolean restarted() {
            return Ray.getRuntimeContext().wasCurrentActorRestarted();
        }
    }

    static class Broken {
        Broken() {
            throw new UnsupportedOperationException("not today");
        }

        int f() {
            return 1;
        }
    }

    static class Meeting {
        private final CountDownLatch all = new CountDownLatch(3);

        int meet() throws InterruptedException {
            all.countDown();
            all.await();
            return 1;
        }
    }

    static int useHandle(ActorHandle<Counter> counter, int x) {
        return counter.<Integer, Integer>task(Counter::add, x).remote().get();
    }

    static ActorHandle<Counter> makeOne(int start) {
        return Ray.actor(Counter::new, start).remote();
    }

    private static ActorHandle<Counter> counter(int start) {
        return Ray.actor(Counter::new, start).remote();
    }

    @Test
    void callsInOrder() {
        ActorHandle<Counter> c = counter(10);
        List<ObjectRef<Integer>> refs = new ArrayList<>();
        for (int i = 0; i < 500; i++) refs.add(c.<Integer, Integer>task(Counter::add, 1).remote());
        for (int i = 0; i < 500; i++) assertEquals(11 + i, refs.get(i).get());
        assertEquals(513, c.<Integer, Integer, Integer>task(Counter::add, 1, 2).remote().get(), "the overload with two arguments");
        assertEquals(513, c.task(Base::total).remote().get(), "an inherited method");
        assertEquals(1026, c.task((Counter self) -> self.total * 2).remote().get(), "a lambda runs in the actor");
        int captured = 3;
        assertThrows(IllegalArgumentException.class, () -> c.task((Counter self) -> self.total * captured));
        assertEquals(514, c.<Integer, Integer>task(Counter::add, Ray.put(1)).remote().get());
        assertEquals(515, c.call("add", Integer.class, 1).remote().get(), "by name");
    }

    @Test
    void handlesTravel() {
        ActorHandle<Counter> c = counter(0);
        assertEquals(5, Ray.task(ActorsTest::useHandle, c, 5).remote().get());
        assertEquals(c, Ray.put(List.of(c)).get().get(0));
        ActorHandle<Counter> made = Ray.task(ActorsTest::makeOne, 7).remote().get();
        assertEquals(7, made.task(Base::total).remote().get(), "made by a task that is over");
    }

    @Test
    void namedAndDetached() {
        ActorHandle<Counter> c = Ray.actor(Counter::new, 1).setName("the one").setDetached(true).remote();
        assertEquals(c, Ray.<Counter>getActor("the one").orElseThrow());
        RayException e = assertThrows(RayException.class, () -> Ray.actor(Counter::new, 2).setName("the one").remote());
        assertEquals("ALREADY_EXISTS", e.codeName());
        assertEquals(c, Ray.actor(Counter::new, 2).setName("the one").setGetIfExists(true).remote());
        assertEquals(Optional.empty(), Ray.getActor("nobody"));
        c.kill();
        assertThrows(RayActorException.class, () -> c.task(Base::total).remote().get());
    }

    @Test
    void exceptionsAndDeaths() {
        ActorHandle<Counter> c = counter(0);
        RayTaskException e = assertThrows(RayTaskException.class, () -> c.task(Counter::fail, "why not").remote().get());
        assertInstanceOf(IllegalStateException.class, e.getCause());
        assertEquals(0, c.task(Base::total).remote().get(), "it lives on");
        assertThrows(RayActorException.class, () -> c.task(Counter::crash).remote().get());
        assertThrows(RayActorException.class, () -> c.task(Base::total).remote().get());
        ActorHandle<Broken> broken = Ray.actor(Broken::new).remote();
        RayActorException died = assertThrows(RayActorException.class, () -> broken.task(Broken::f).remote().get());
        assertEquals("not today", died.getCause().getMessage());
        RayException unknown = assertThrows(RayException.class, () -> counter(0).call("nix", Integer.class).remote().get());
        assertEquals("UNKNOWN_FUNCTION", unknown.codeName());
    }

    @Test
    void restarts() {
        ActorHandle<Counter> c = Ray.actor(Counter::new, 3).setMaxRestarts(1).setMaxTaskRetries(1).remote();
        int before = c.task(Counter::pid).remote().get();
        assertEquals(false, c.task(Counter::restarted).remote().get());
        assertThrows(RayActorException.class, () -> c.task(Counter::crash).setMaxRetries(0).remote().get());
        assertEquals(3, c.task(Base::total).remote().get());
        assertEquals(true, c.task(Counter::restarted).remote().get());
        assertNotEquals(before, c.task(Counter::pid).remote().get());
    }

    @Test
    void exitsByItsOwnWill() {
        ActorHandle<Counter> c = counter(0);
        assertEquals(null, c.task(Counter::leave).remote().get());
        RayActorException e = assertThrows(RayActorException.class, () -> c.task(Base::total).remote().get());
        assertEquals("ACTOR_DIED", e.codeName());
        assertThrows(IllegalStateException.class, Ray::exitActor);
    }

    static class Leaver {
        private final CountDownLatch running = new CountDownLatch(2);

        int slow() throws InterruptedException {
            running.countDown();
            Thread.sleep(500);
            return 5;
        }

        int leave() throws InterruptedException {
            running.await();
            Ray.exitActor();
            return 1;
        }
    }

    @Test
    void callsThatRunGoOnWhenTheActorExits() {
        ActorHandle<Leaver> leaver = Ray.actor(Leaver::new).setMaxConcurrency(3).remote();
        List<ObjectRef<Integer>> slow = List.of(leaver.task(Leaver::slow).remote(), leaver.task(Leaver::slow).remote());
        leaver.task(Leaver::leave).remote();
        assertEquals(List.of(5, 5), Ray.get(slow));
        assertThrows(RayActorException.class, () -> leaver.task(Leaver::slow).remote().get());
    }

    @Test
    void concurrentActorsRunCallsTogether() {
        ActorHandle<Meeting> meeting = Ray.actor(Meeting::new).setMaxConcurrency(3).remote();
        List<ObjectRef<Integer>> refs = new ArrayList<>();
        for (int i = 0; i < 3; i++) refs.add(meeting.task(Meeting::meet).remote());
        assertEquals(List.of(1, 1, 1), Ray.get(refs));
    }

    @Test
    void streamsOfMethods() {
        List<Integer> items = new ArrayList<>();
        counter(5).stream(Counter::upTo, 4).remote().forEach(items::add);
        assertEquals(List.of(5, 6, 7, 8), items);
    }

    @Test
    void pendingCallsAreLimited() {
        ActorHandle<Meeting> meeting = Ray.actor(Meeting::new).setMaxPendingCalls(2).remote();
        List<ObjectRef<Integer>> kept = new ArrayList<>();
        RayException e = assertThrows(RayException.class, () -> {
            for (int i = 0; i < 5; i++) kept.add(meeting.task(Meeting::meet).remote());
        });
        assertEquals("UNAVAILABLE", e.codeName());
        assertTrue(e.isRetryable());
        meeting.kill();
    }
}
