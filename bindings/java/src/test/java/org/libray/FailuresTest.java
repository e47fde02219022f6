package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.libray.exception.RayActorException;
import org.libray.exception.RayException;
import org.libray.exception.RayTaskException;
import org.libray.exception.RayWorkerException;
import org.libray.exception.RemoteException;

/** What user code can do to its worker; the node and the next task never notice. */
class FailuresTest extends Cluster {
    static final class Odd extends RuntimeException {
        private static final long serialVersionUID = 1;
        final transient Object here = new Object();
        final Object unserialisable = new Thread();

        Odd(String message) {
            super(message, new IllegalArgumentException("the reason"));
        }
    }

    static int fails(String how) throws Exception {
        switch (how) {
            case "checked": throw new java.io.IOException("disk");
            case "odd": throw new Odd("strange");
            case "error": throw new AssertionError("no");
            case "deep": return 1 + fails("deep");
            case "memory": return new ArrayList<>(List.of(new long[Integer.MAX_VALUE / 16], new long[Integer.MAX_VALUE / 16])).size();
            case "exit": System.exit(3); return 0;
            case "exit elsewhere":
                Thread t = new Thread(() -> System.exit(4));
                t.start();
                t.join();
                return 0;
            case "halt": Runtime.getRuntime().halt(5); return 0;
            case "segfault": return crash();
            case "missing": throw new NoClassDefFoundError("no/such/Thing");
            default: return 0;
        }
    }

    static int nested(String how) {
        return Ray.task(FailuresTest::fails, how).remote().get();
    }

    // An address that is not mapped.
    static int crash() throws Exception {
        java.lang.reflect.Field f = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe");
        f.setAccessible(true);
        Object unsafe = f.get(null);
        return (Integer) unsafe.getClass().getMethod("getInt", long.class).invoke(unsafe, 8L);
    }

    static int fine() {
        return 1;
    }

    static class Host {
        int run(String how) throws Exception {
            return fails(how);
        }
    }

    @AfterEach
    void theNodeWorks() {
        assertEquals(1, Ray.task(FailuresTest::fine).remote().get());
    }

    private static <E extends RayException> E failure(Class<E> type, String how) {
        return assertThrows(type, () -> Ray.task(FailuresTest::fails, how).setMaxRetries(0).remote().get());
    }

    @Test
    void exceptionsComeBackAsThemselves() {
        RayTaskException e = failure(RayTaskException.class, "checked");
        assertInstanceOf(java.io.IOException.class, e.getCause());
        assertEquals("disk", e.getCause().getMessage());
        StackTraceElement place = e.getCause().getStackTrace()[0];
        assertEquals("fails", place.getMethodName());
        assertEquals("FailuresTest.java", place.getFileName());
        for (String word : List.of("Java function org.libray.FailuresTest.fails", "FailuresTest.java:", "java.io.IOException: disk"))
            assertTrue(e.getMessage().contains(word), e.getMessage());
        assertEquals("fails", e.getCause().getStackTrace()[e.getCause().getStackTrace().length - 1].getMethodName(), "libray's own frames are left out");
        assertInstanceOf(AssertionError.class, failure(RayTaskException.class, "error").getCause());
        assertInstanceOf(NoClassDefFoundError.class, failure(RayTaskException.class, "missing").getCause());
    }

    @Test
    void whatCannotBeSerialisedIsDescribed() {
        RemoteException e = assertInstanceOf(RemoteException.class, failure(RayTaskException.class, "odd").getCause());
        assertEquals("org.libray.FailuresTest$Odd", e.typeName());
        assertEquals("java", e.language());
        assertTrue(e.getMessage().contains("strange"));
        assertTrue(e.stack().contains("FailuresTest.java:"), e.stack());
        assertEquals("fails", e.getStackTrace()[0].getMethodName());
        assertTrue(e.getCause().getMessage().contains("the reason"));
    }

    @Test
    void stacksAndHeapsThatOverflow() {
        assertInstanceOf(StackOverflowError.class, failure(RayTaskException.class, "deep").getCause());
        assertInstanceOf(OutOfMemoryError.class, failure(RayTaskException.class, "memory").getCause());
    }

    @Test
    void exitNamesItsPlace() {
        RayTaskException e = failure(RayTaskException.class, "exit");
        for (String word : List.of("System.exit", "FailuresTest.java:", "Java function org.libray.FailuresTest.fails")) assertTrue(e.getMessage().contains(word), e.getMessage());
        ActorHandle<Host> host = Ray.actor(Host::new).remote();
        RayActorException died = assertThrows(RayActorException.class, () -> host.task(Host::run, "exit").remote().get());
        assertTrue(died.getMessage().contains("System.exit"), died.getMessage());
        assertThrows(RayActorException.class, () -> host.task(Host::run, "").remote().get());
    }

    @Test
    void processesThatDieNameTheirFunction() {
        for (String how : List.of("halt", "segfault", "exit elsewhere")) {
            RayWorkerException e = failure(RayWorkerException.class, how);
            assertTrue(e.getMessage().contains("org.libray.FailuresTest.fails"), e.getMessage());
        }
    }

    @Test
    void errorsGoThroughTasks() {
        RayTaskException e = assertThrows(RayTaskException.class, () -> Ray.task(FailuresTest::nested, "checked").remote().get());
        Throwable inner = assertInstanceOf(RayTaskException.class, e.getCause());
        assertInstanceOf(java.io.IOException.class, inner.getCause());
        ObjectRef<Integer> bad = Ray.task(FailuresTest::fails, "checked").remote();
        assertThrows(RayTaskException.class, () -> Ray.task(CallsTest::square, bad).remote().get(), "a task that takes a failed result");
    }

    @Test
    void retriesOnExceptions() {
        ActorHandle<Tries> tries = Ray.actor(Tries::new).remote();
        assertEquals(3, Ray.task(FailuresTest::thirdTime, tries).setMaxRetries(3).setRetryExceptions(true).remote().get());
    }

    static class Tries {
        private int n;

        int next() {
            return ++n;
        }
    }

    static int thirdTime(ActorHandle<Tries> tries) {
        int n = tries.task(Tries::next).remote().get();
        if (n < 3) throw new IllegalStateException("try " + n);
        return n;
    }

    @Test
    void functionsByNameThatAreNotThere() {
        for (RemoteFunction<Integer> f : List.of(RemoteFunction.java("no.such.Class", "f", Integer.class), RemoteFunction.java("org.libray.CallsTest", "nix", Integer.class))) {
            RayException e = assertThrows(RayException.class, () -> Ray.task(f).remote().get());
            assertEquals("UNKNOWN_FUNCTION", e.codeName());
            assertTrue(e.getMessage().contains(f.toString().substring(0, 8)), e.getMessage());
        }
        Map<String, ?> none = Map.of();
        assertEquals(none, Ray.put(none).get());
    }
}
