// The machine of the Java driver (../SPEC.md): runs instructions in a driver, a task, a call or a thread of any of them.
import java.io.Serializable;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.libray.ActorCreator;
import org.libray.ActorHandle;
import org.libray.CallOptions;
import org.libray.KeyValue;
import org.libray.ObjectRef;
import org.libray.ObjectStream;
import org.libray.PlacementGroup;
import org.libray.PlacementStrategy;
import org.libray.Ray;
import org.libray.StreamCaller;
import org.libray.TaskCaller;
import org.libray.Tensor;
import org.libray.WaitResult;
import org.libray.exception.RayException;

public class Machine {
    static final long STEP = 0x9E3779B97F4A7C15L;

    /** What a body throws when it is to fail, or when an instruction of it failed. */
    static class BodyFailed extends RuntimeException {
        private static final long serialVersionUID = 1;

        BodyFailed(String message) {
            super(message);
        }
    }

    /** A slot is empty. */
    static class Empty extends Exception {
        private static final long serialVersionUID = 1;
    }

    // ---- values: the tag decides which of several kinds of Java objects it is

    record Content(long tag, long size, byte[] data, List<Object> inside) {}

    /** Goes by Java's serialisation. */
    static class Holder implements Serializable {
        private static final long serialVersionUID = 1;
        final long tag, size;
        final long[] data;
        final ArrayList<Object> inside;

        Holder(long tag, long size, long[] data, List<Object> inside) {
            this.tag = tag;
            this.size = size;
            this.data = data;
            this.inside = new ArrayList<>(inside);
        }
    }

    static long mix(long acc, long x) {
        return acc * 6364136223846793005L + x + 1;
    }

    static long[] pattern(long tag, long size) {
        long[] data = new long[(int) (size / 8)];
        for (int i = 0; i < data.length; i++) data[i] = (tag + i) * STEP;
        return data;
    }

    static byte[] bytes(long[] data) {
        ByteBuffer b = ByteBuffer.allocate(8 * data.length).order(ByteOrder.LITTLE_ENDIAN);
        b.asLongBuffer().put(data);
        return b.array();
    }

    /** Programs of two languages; and a fault that the tester has to find. */
    static final boolean CROSS = System.getenv("CONFORMANCE_CROSS") != null;
    static final String PLANT = String.valueOf(System.getenv("CONFORMANCE_PLANT")).replace("@java", "");

    // The form of programs of two languages: tag, size, bytes, array, and pairs of a reference or null and a handle or null.
    private static Object cross(long tag, long size, long[] data, List<Object> inside) {
        boolean array = Long.remainderUnsigned(tag, 3) == 0;
        List<Object> pairs = new ArrayList<>();
        for (Object x : inside) pairs.add(new ArrayList<>(x instanceof ObjectRef ? Arrays.asList(x, null) : Arrays.asList(null, x)));
        Object number = tag < 0 ? new BigInteger(Long.toUnsignedString(tag)) : (Object) tag;
        return new ArrayList<>(Arrays.asList(number, size, array ? new byte[0] : bytes(data), Tensor.of(array ? data : new long[0]), pairs));
    }

    @SuppressWarnings("unchecked")
    private static Seen lookCross(List<Object> l) {
        long tag = ((Number) l.get(0)).longValue();
        byte[] bytes = (byte[]) l.get(2);
        LongBuffer array = ((Tensor) l.get(3)).asLongBuffer();
        boolean isArray = Long.remainderUnsigned(tag, 3) == 0;
        List<Object> inside = new ArrayList<>();
        boolean right = (isArray ? bytes.length : array.remaining()) == 0;
        for (Object pair : (List<Object>) l.get(4)) {
            List<Object> two = (List<Object>) pair;
            right &= (two.get(0) == null) != (two.get(1) == null);
            inside.add(two.get(0) == null ? two.get(1) : two.get(0));
        }
        long[] data = longs(bytes);
        if (isArray) array.get(0, data = new long[array.remaining()]);
        Seen s = seen(tag, (Long) l.get(1), data, inside);
        return new Seen(s.tag(), s.size(), inside, s.whole() && right);
    }

    static Object make(long tag, long size, List<Object> inside) {
        long[] data = pattern(tag, size);
        boolean wrong = Long.remainderUnsigned(tag, 7) == 0;
        if (wrong && PLANT.equals("value") && data.length > 0) data[data.length - 1] = 7;
        if (wrong && PLANT.equals("lost") && !inside.isEmpty()) inside.remove(inside.size() - 1);
        if (CROSS) return cross(tag, size, data, inside);
        switch ((int) Long.remainderUnsigned(tag, 5)) {
            case 0: return new ArrayList<>(List.of(tag, size, bytes(data), inside));
            case 1: return new LinkedHashMap<>(Map.of("tag", tag, "size", size, "data", data, "inside", inside));
            case 2: return new Holder(tag, size, data, inside);
            case 3:
                if (!inside.isEmpty()) return new Content(tag, size, bytes(data), inside);
                long[] whole = new long[data.length + 2];
                whole[0] = tag;
                whole[1] = size;
                System.arraycopy(data, 0, whole, 2, data.length);
                return Tensor.of(whole);
            default: return new Content(tag, size, bytes(data), inside);
        }
    }

    record Seen(long tag, long size, List<Object> inside, boolean whole) {}

    @SuppressWarnings("unchecked")
    static Seen look(Object value) {
        if (CROSS) return lookCross((List<Object>) value);
        if (value instanceof Tensor) {
            LongBuffer b = ((Tensor) value).asLongBuffer();
            long[] data = new long[b.remaining() - 2];
            b.get(2, data);
            return seen(b.get(0), b.get(1), data, List.of());
        }
        if (value instanceof Holder) return seen(((Holder) value).tag, ((Holder) value).size, ((Holder) value).data, ((Holder) value).inside);
        if (value instanceof Content) return seen(((Content) value).tag(), ((Content) value).size(), longs(((Content) value).data()), ((Content) value).inside());
        if (value instanceof Map) {
            Map<String, Object> m = (Map<String, Object>) value;
            return seen((Long) m.get("tag"), (Long) m.get("size"), (long[]) m.get("data"), (List<Object>) m.get("inside"));
        }
        List<Object> l = (List<Object>) value;
        return seen((Long) l.get(0), (Long) l.get(1), longs((byte[]) l.get(2)), (List<Object>) l.get(3));
    }

    static Seen seen(long tag, long size, long[] data, List<Object> inside) {
        return new Seen(tag, size, inside, Arrays.equals(data, pattern(tag, size)));
    }

    static long[] longs(byte[] bytes) {
        long[] data = new long[bytes.length / 8];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().get(data);
        return data;
    }

    // ---- text

    /** Lists of words; a body is a word that begins with '['. */
    static List<List<String>> instructions(String text) {
        List<List<String>> all = new ArrayList<>();
        List<String> words = new ArrayList<>();
        StringBuilder word = new StringBuilder();
        int depth = 0;
        for (char c : (text + ";").toCharArray()) {
            if (depth == 0 && (c == ' ' || c == ';')) {
                if (word.length() != 0) words.add(word.toString());
                word.setLength(0);
                if (c == ';' && !words.isEmpty()) {
                    all.add(words);
                    words = new ArrayList<>();
                }
                continue;
            }
            depth += c == '[' ? 1 : c == ']' ? -1 : 0;
            word.append(c);
        }
        return all;
    }

    static String bodyOf(List<String> words) {
        String word = words.get(words.size() - 1);
        return word.substring(1, word.length() - 1);
    }

    static Map<String, String> options(List<String> words) {
        Map<String, String> found = new HashMap<>();
        for (String w : words) {
            int at = w.indexOf('=');
            if (at > 0 && w.charAt(0) != '[' && w.charAt(0) != 'v') found.put(w.substring(0, at), w.substring(at + 1));
        }
        return found;
    }

    // ---- the machine

    final Map<String, Object> slots = new HashMap<>();
    final Map<String, Long> versions = new HashMap<>();
    final Map<String, Thread> threads = new HashMap<>();
    final Map<Integer, Object> given = new HashMap<>();
    final Consumer<String> say; // null in a body
    final long boundMs;
    final Object[] args;
    final Bodies.Box state;
    final int attempt;
    long acc;
    String path = "";
    boolean over;
    Object yielded;

    Machine(Object[] args, Bodies.Box state) {
        this(null, -1, args, state, Ray.getRuntimeContext().getAttempt() - 1); // the machine counts from 0
    }

    Machine(Consumer<String> say, long boundMs, Object[] args, Bodies.Box state, int attempt) {
        this.say = say;
        this.boundMs = boundMs;
        this.args = args;
        this.state = state;
        this.attempt = attempt;
    }

    boolean inBody() {
        return say == null;
    }

    void tell(String text) {
        if (say != null) say.accept("a " + path + " " + text);
    }

    void failed(String code, String message) {
        if (inBody()) throw new BodyFailed(path + ": " + code + ": " + message);
        String line = message.replaceAll("\\s+", " ");
        tell(code.equals("TIMED_OUT") ? "t" : "e " + code + " # " + line.substring(0, Math.min(300, line.length())));
    }

    /** Runs a list of instructions to its end. */
    void run(String text, String prefix) throws Exception {
        Iterator<Object> steps = steps(text, prefix);
        while (steps.hasNext()) steps.next();
    }

    /** The items that a body yields, each when it is asked for. */
    Iterator<Object> steps(String text, String prefix) {
        Iterator<List<String>> all = instructions(text).iterator();
        return new Iterator<>() {
            private int index;
            private Object next;

            @Override
            public boolean hasNext() {
                while (next == null && !over && all.hasNext()) {
                    path = prefix + index++;
                    one(all.next());
                    next = yielded;
                    yielded = null;
                }
                return next != null;
            }

            @Override
            public Object next() {
                if (!hasNext()) throw new NoSuchElementException();
                Object item = next;
                next = null;
                return item;
            }
        };
    }

    private void one(List<String> words) {
        try {
            execute(words);
        } catch (Empty e) {
            if (inBody()) throw new BodyFailed(path + ": a slot is empty");
            tell("empty");
        } catch (RayException e) {
            failed(e.codeName(), String.valueOf(e.getMessage()));
        } catch (RuntimeException e) {
            throw e;
        } catch (Exception e) {
            throw new BodyFailed(path + ": " + e);
        }
    }

    private void execute(List<String> w) throws Exception {
        switch (w.get(0)) {
            case "put": slots.put(w.get(1), Ray.put(parse(w.get(2)))); tell("ok"); return;
            case "get": get(w); return;
            case "try": tryGet(w); return;
            case "wait": wait(w); return;
            case "told": told(w); return;
            case "elem": { Object v = value(ref(w.get(1))); take(v == null ? List.of() : look(v).inside(), w); return; }
            case "copy": slots.put(w.get(1), slot(w.get(2))); tell("ok"); return;
            case "drop": for (String name : w.subList(1, w.size())) slots.remove(name); tell("ok"); return;
            case "task": task(w); return;
            case "stream": stream(w); return;
            case "call": call(w); return;
            case "callstream": callStream(w); return;
            case "actor": actor(w); return;
            case "next": next(w); return;
            case "scancel": ((ObjectStream<?>) slot(w.get(1))).cancel(); tell("ok"); return;
            case "sdone": slots.put(w.get(2), ((ObjectStream<?>) slot(w.get(1))).completed()); tell("ok"); return;
            case "cancel": ref(w.get(1)).cancel(w.get(2).contains("f"), w.get(2).contains("r")); tell("ok"); return;
            case "find": find(w); return;
            case "kill": ((ActorHandle<?>) slot(w.get(1))).kill(!w.get(2).equals("1")); tell("ok"); return;
            case "group": group(w); return;
            case "gwait": groupWait(w); return;
            case "gremove": groupRemove(w); return;
            case "kvput": case "kvget": case "kvdel": keyValue(w); return;
            case "sleep": TimeUnit.MICROSECONDS.sleep(Long.parseLong(w.get(1))); tell("ok"); return;
            case "spin": { long end = System.nanoTime() + 1000 * Long.parseLong(w.get(1)); while (System.nanoTime() < end) Thread.onSpinWait(); tell("ok"); return; }
            case "thread": thread(w); return;
            case "spawn": spawn(w); return;
            case "join": join(w); return;
            case "pump": pump(w); return;
            case "driver": case "fault": surroundings(w); return;
            default: body(w);
        }
    }

    void surroundings(List<String> words) throws Exception {
        throw new BodyFailed(path + ": " + words.get(0) + " is for drivers");
    }

    // -- what is for bodies alone
    private void body(List<String> w) throws Exception {
        switch (w.get(0)) {
            case "arg": see(argument(w)); return;
            case "argx": { Object v = argument(w); take(v == null ? List.of() : look(v).inside(), List.of("", "", w.get(2), w.get(3))); return; }
            case "ret": given.put(Integer.parseInt(w.get(1)), result(w, 2)); return;
            case "rets": given.put(Integer.parseInt(w.get(1)), make(state.sum(), 0, List.of())); return;
            case "reterr": given.put(Integer.parseInt(w.get(1)), Ray.failed(new BodyFailed("on purpose"))); return;
            case "yield": yielded = result(w, 1); return;
            case "fail": if (w.size() < 2 || attempt < Integer.parseInt(w.get(1))) throw new BodyFailed("on purpose"); return;
            case "crash": if (w.size() < 2 || attempt < Integer.parseInt(w.get(1))) kill(); return;
            case "exit": Ray.exitActor(); return;
            case "hold": hold(Long.parseLong(w.get(1))); return;
            case "add": acc = mix(acc, state.add(Long.parseUnsignedLong(w.get(1)))); return;
            case "keep": state.keep(Integer.parseInt(w.get(1)) & 7, slot(w.get(2))); return;
            case "kept": { Object kept = state.kept(Integer.parseInt(w.get(1)) & 7); if (kept == null) throw new Empty(); slots.put(w.get(2), kept); return; }
            default: throw new BodyFailed(path + ": unknown " + w.get(0));
        }
    }

    static void kill() throws Exception {
        ProcessHandle me = ProcessHandle.current();
        new ProcessBuilder("kill", "-9", Long.toString(me.pid())).start().waitFor();
        Thread.sleep(10_000);
    }

    private void hold(long us) throws InterruptedException {
        long end = System.nanoTime() + us * 1000;
        while (System.nanoTime() < end) Thread.sleep(0, 500_000); // interrupted when the task is cancelled
    }

    private Object argument(List<String> w) throws Empty {
        int at = Integer.parseInt(w.get(1));
        if (at >= args.length) throw new Empty();
        return args[at];
    }

    private Object result(List<String> w, int at) throws Empty {
        String[] parts = w.get(at).split(":", 3);
        long tag = mix(acc, Long.parseUnsignedLong(parts[0]));
        if (w.size() > at + 1 && w.get(at + 1).equals("a")) tag = mix(tag, 1000 + attempt);
        return make(tag, Long.parseLong(parts[1]), inside(parts));
    }

    // -- values
    Object slot(String name) throws Empty {
        Object found = slots.get(name);
        if (found == null) throw new Empty();
        return found;
    }

    @SuppressWarnings("unchecked")
    ObjectRef<Object> ref(String name) throws Empty {
        return (ObjectRef<Object>) slot(name);
    }

    Object parse(String word) throws Empty {
        String[] parts = word.split(":", 3);
        return make(Long.parseUnsignedLong(parts[0]), Long.parseLong(parts[1]), inside(parts));
    }

    private List<Object> inside(String[] parts) throws Empty {
        List<Object> inside = new ArrayList<>();
        if (parts.length > 2) for (String name : parts[2].split(",")) inside.add(slot(name));
        return inside;
    }

    Object value(ObjectRef<Object> ref) {
        try {
            return ref.get(boundMs);
        } catch (RayException e) {
            if (e.codeName().equals("TIMED_OUT")) over = !inBody();
            throw e;
        }
    }

    void see(Object value) {
        if (value == null) {
            acc = mix(acc, 1);
            tell("nil");
            return;
        }
        Seen s = look(value);
        acc = mix(acc, s.whole() ? s.tag() + s.size() : 1);
        String what = Long.toUnsignedString(s.tag()) + " " + s.size();
        tell(s.whole() ? "v " + what + " " + s.inside().size() : "damaged " + what);
    }

    private void get(List<String> w) throws Empty {
        List<ObjectRef<Object>> refs = new ArrayList<>();
        for (String name : w.subList(1, w.size())) refs.add(ref(name));
        if (refs.size() == 1) {
            see(value(refs.get(0)));
            return;
        }
        List<Object> values;
        try {
            values = Ray.get(refs, boundMs);
        } catch (RayException e) {
            if (e.codeName().equals("TIMED_OUT")) over = !inBody();
            throw e;
        }
        if (PLANT.equals("order")) values = swapped(values);
        tell("values " + values.size());
        values.forEach(this::see);
    }

    private static List<Object> swapped(List<Object> values) {
        List<Object> all = new ArrayList<>(values);
        java.util.Collections.swap(all, 0, 1);
        return all;
    }

    private void tryGet(List<String> w) throws Empty {
        try {
            see(ref(w.get(1)).get(0));
        } catch (RayException e) {
            if (!e.codeName().equals("TIMED_OUT")) throw e;
            tell("t");
        }
    }

    private void wait(List<String> w) throws Empty {
        int want = Integer.parseInt(w.get(1)), ms = Integer.parseInt(w.get(2));
        List<ObjectRef<Object>> refs = new ArrayList<>();
        for (String name : w.subList(3, w.size())) refs.add(ref(name));
        WaitResult<Object> result;
        try {
            result = Ray.wait(refs, want, ms < 0 ? boundMs : ms);
        } catch (IllegalArgumentException e) {
            failed("INVALID_ARGUMENT", String.valueOf(e.getMessage()));
            return;
        }
        over = !inBody() && ms < 0 && result.getReady().size() < want;
        StringBuilder mask = new StringBuilder();
        for (ObjectRef<Object> r : refs) mask.append(result.getReady().contains(r) ? '1' : '0');
        tell("w " + result.getReady().size() + " " + mask);
    }

    private void told(List<String> w) throws Exception {
        List<CompletableFuture<Object>> futures = new ArrayList<>();
        for (String name : w.subList(1, w.size())) futures.add(ref(name).toCompletableFuture());
        StringBuilder codes = new StringBuilder("told");
        for (CompletableFuture<Object> future : futures) {
            try {
                if (boundMs < 0) future.get();
                else future.get(boundMs, TimeUnit.MILLISECONDS);
                codes.append(" OK");
            } catch (ExecutionException e) {
                codes.append(' ').append(((RayException) e.getCause()).codeName());
            } catch (java.util.concurrent.TimeoutException e) {
                over = !inBody();
                failed("TIMED_OUT", "");
                return;
            }
        }
        tell(codes.toString());
    }

    private void take(List<Object> inside, List<String> w) {
        int at = Integer.parseInt(w.get(2));
        if (at >= inside.size() || inside.get(at) instanceof ObjectRef != (w.get(3).charAt(0) == 'r')) {
            failed("INVALID_ARGUMENT", "no such reference");
            return;
        }
        slots.put(w.get(3), inside.get(at));
        tell("ok");
    }

    // -- submitting
    private Object[] arguments(List<String> w, int first) throws Empty {
        List<Object> values = new ArrayList<>();
        for (String word : w.subList(first, w.size() - 1))
            if (word.indexOf('=') < 0) values.add(word.charAt(0) == 'r' ? slot(word) : parse(word.substring(1)));
        return values.toArray();
    }

    private <C extends CallOptions<C>> C common(C call, List<String> w, Map<String, String> o, boolean resources) throws Empty {
        if (resources && o.containsKey("res"))
            for (String part : o.get("res").split(",")) call.setResource(part.substring(0, part.lastIndexOf(':')), Double.parseDouble(part.substring(part.lastIndexOf(':') + 1)));
        if (o.containsKey("group")) call.setPlacementGroup((PlacementGroup) slot(o.get("group")), Integer.parseInt(o.getOrDefault("bundle", "-1")));
        return call;
    }

    private TaskCaller<Object> optioned(TaskCaller<Object> call, List<String> w, Map<String, String> o, int outs, boolean resources) throws Empty {
        common(call, w, o, resources).setName(w.get(1)).setNumReturns(outs);
        if (o.containsKey("retries")) call.setMaxRetries(Integer.parseInt(o.get("retries")));
        if (o.containsKey("roe")) call.setRetryExceptions(true);
        return call;
    }

    private StreamCaller<Object> optioned(StreamCaller<Object> call, List<String> w, Map<String, String> o, boolean resources) throws Empty {
        common(call, w, o, resources).setName(w.get(1));
        if (o.containsKey("retries")) call.setMaxRetries(Integer.parseInt(o.get("retries")));
        if (o.containsKey("roe")) call.setRetryExceptions(true);
        if (o.containsKey("window")) call.setWindow(Integer.parseInt(o.get("window")));
        return call;
    }

    private static String[] outsOf(String word) {
        return word.equals("-") ? new String[0] : word.split(",");
    }

    private static String counted(String body, int outs) {
        if (CROSS) return outs > 1 ? outs + ";" + body : body;
        return outs == 1 ? body : outs + "|" + body;
    }

    private void submit(TaskCaller<Object> call, String[] outs) {
        if (outs.length == 1) {
            slots.put(outs[0], call.remote());
        } else {
            List<ObjectRef<Object>> refs = call.remoteAll();
            for (int i = 0; i < outs.length; i++) slots.put(outs[i], refs.get(i));
        }
        tell("ok");
    }

    private void task(List<String> w) throws Empty {
        String[] outs = outsOf(w.get(2));
        Map<String, String> o = options(w.subList(3, w.size()));
        String name = o.containsKey("twin") ? "twin" : outs.length > 1 && CROSS ? "run_several" : "run";
        TaskCaller<Object> call = Bodies.task(o.get("lang"), name, counted(bodyOf(w), outs.length), arguments(w, 3));
        submit(optioned(call, w, o, outs.length, true), outs);
    }

    private void call(List<String> w) throws Empty {
        String[] outs = outsOf(w.get(3));
        ActorHandle<?> box = (ActorHandle<?>) slot(w.get(2));
        String name = outs.length > 1 && CROSS ? "run_several" : "run";
        TaskCaller<Object> call = Bodies.call(box, name, counted(bodyOf(w), outs.length), arguments(w, 4));
        submit(optioned(call, w, options(w.subList(4, w.size())), outs.length, false), outs);
    }

    private void stream(List<String> w) throws Empty {
        Map<String, String> o = options(w.subList(3, w.size()));
        slots.put(w.get(2), optioned(Bodies.stream(o.get("lang"), bodyOf(w), arguments(w, 3)), w, o, true).remote());
        tell("ok");
    }

    private void callStream(List<String> w) throws Empty {
        ActorHandle<?> box = (ActorHandle<?>) slot(w.get(2));
        slots.put(w.get(3), optioned(Bodies.callStream(box, bodyOf(w), arguments(w, 4)), w, options(w.subList(4, w.size())), false).remote());
        tell("ok");
    }

    private void actor(List<String> w) throws Empty {
        Map<String, String> o = options(w.subList(3, w.size()));
        ActorCreator<Object> creator = common(Bodies.actor(o.get("lang"), bodyOf(w), arguments(w, 3)), w, o, true);
        if (o.containsKey("restarts")) creator.setMaxRestarts(Integer.parseInt(o.get("restarts")));
        if (o.containsKey("again")) creator.setMaxTaskRetries(Integer.parseInt(o.get("again")));
        if (o.containsKey("conc")) creator.setMaxConcurrency(Integer.parseInt(o.get("conc")));
        if (o.containsKey("pending")) creator.setMaxPendingCalls(Integer.parseInt(o.get("pending")));
        if (o.containsKey("name")) creator.setName(o.get("name"));
        creator.setDetached(o.containsKey("detached")).setGetIfExists(o.containsKey("gie")).setOutOfOrder(o.containsKey("ooo"));
        slots.put(w.get(2), creator.remote());
        tell("ok");
    }

    // -- streams, actors
    private void next(List<String> w) throws Empty {
        ObjectStream<?> stream = (ObjectStream<?>) slot(w.get(1));
        long ms = Long.parseLong(w.get(3));
        Optional<?> item;
        try {
            item = stream.nextRef(ms < 0 ? boundMs : ms);
        } catch (RayException e) {
            if (!e.codeName().equals("TIMED_OUT")) throw e;
            over = !inBody() && ms < 0;
            tell("t");
            return;
        }
        if (item.isEmpty()) {
            acc = mix(acc, 7);
            slots.remove(w.get(2));
            tell("end");
            return;
        }
        slots.put(w.get(2), item.get());
        tell("ok");
    }

    private void find(List<String> w) {
        slots.remove(w.get(2));
        Optional<ActorHandle<Object>> found = Ray.getActor(w.get(1));
        if (found.isEmpty()) {
            failed("NOT_FOUND", w.get(1));
            return;
        }
        slots.put(w.get(2), found.get());
        tell("ok");
    }

    // -- around
    private void group(List<String> w) {
        List<Map<String, Double>> bundles = new ArrayList<>();
        for (String bundle : w.get(3).split("/")) {
            Map<String, Double> amounts = new HashMap<>();
            for (String part : bundle.split(",")) amounts.put(part.substring(0, part.lastIndexOf(':')), Double.parseDouble(part.substring(part.lastIndexOf(':') + 1)));
            bundles.add(amounts);
        }
        slots.put(w.get(1), Ray.createPlacementGroup(bundles, PlacementStrategy.values()[Integer.parseInt(w.get(2))]));
        tell("ok");
    }

    private void groupWait(List<String> w) {
        PlacementGroup group = (PlacementGroup) slots.get(w.get(1));
        if (group == null) {
            failed("NOT_FOUND", "no group");
            return;
        }
        tell(group.waitMs(Long.parseLong(w.get(2))) ? "ok" : "t");
    }

    private void groupRemove(List<String> w) {
        PlacementGroup group = (PlacementGroup) slots.remove(w.get(1));
        if (group == null) {
            failed("NOT_FOUND", "no group");
            return;
        }
        Ray.removePlacementGroup(group);
        tell("ok");
    }

    /** Of a driver's machine that has ended: one that gave up has left them. */
    void removeGroups() {
        for (Object thing : slots.values()) {
            if (!(thing instanceof PlacementGroup)) continue;
            try {
                Ray.removePlacementGroup((PlacementGroup) thing);
            } catch (RuntimeException e) {
                // the node is dead
            }
        }
    }

    private long expected(List<String> w, int at) {
        return w.get(at).equals("any") ? KeyValue.ANY : w.get(at).equals("none") ? 0 : versions.getOrDefault(w.get(1), 0L);
    }

    private void keyValue(List<String> w) {
        KeyValue kv = Ray.kv("model");
        byte[] key = w.get(1).getBytes(java.nio.charset.StandardCharsets.UTF_8);
        switch (w.get(0)) {
            case "kvput":
                long version = kv.put(key, bytes(new long[] {Long.parseUnsignedLong(w.get(2))}), expected(w, 3));
                versions.put(w.get(1), version);
                tell("k " + w.get(2) + " " + version);
                return;
            case "kvget":
                Optional<KeyValue.Entry> found = kv.get(key);
                if (found.isEmpty()) {
                    failed("NOT_FOUND", w.get(1));
                    return;
                }
                long tag = longs(found.get().value())[0];
                versions.put(w.get(1), found.get().version());
                acc = mix(acc, tag);
                tell("k " + Long.toUnsignedString(tag) + " " + found.get().version());
                return;
            default:
                kv.delete(key, expected(w, 2));
                tell("ok");
        }
    }

    // -- beside
    private void thread(List<String> w) throws Exception {
        String outer = path;
        Throwable[] problem = new Throwable[1];
        Thread thread = new Thread(() -> {
            try {
                run(bodyOf(w), outer + ".");
            } catch (Throwable t) {
                problem[0] = t;
            }
        });
        thread.start();
        thread.join();
        if (problem[0] instanceof Error) throw (Error) problem[0];
        if (problem[0] != null) throw (Exception) problem[0];
    }

    private void spawn(List<String> w) {
        if (threads.containsKey(w.get(1))) {
            tell("empty");
            return;
        }
        Machine beside = new Machine(say, boundMs, args, state, attempt);
        beside.slots.putAll(slots);
        String prefix = path + ".";
        Thread thread = new Thread(() -> {
            try {
                beside.run(bodyOf(w), prefix);
            } catch (Exception e) {
                // an answer that is missing tells the tester
            }
        });
        threads.put(w.get(1), thread);
        thread.start();
        tell("ok");
    }

    private void join(List<String> w) throws InterruptedException {
        Thread thread = threads.remove(w.get(1));
        if (thread == null) {
            tell("empty");
            return;
        }
        thread.join();
        tell("ok");
    }

    private void pump(List<String> w) throws Empty {
        ObjectRef<Object> ref = ref(w.get(2));
        int width = Integer.parseInt(w.get(4));
        long end = System.nanoTime() + 1_000_000 * Long.parseLong(w.get(3));
        List<ObjectRef<Object>> window = new ArrayList<>();
        Map<String, String> o = options(w.subList(5, w.size()));
        boolean ready = false;
        while (!ready && System.nanoTime() < end) {
            if (window.size() == width) window.remove(0).get();
            window.add(optioned(Bodies.task(o.get("lang"), "run", bodyOf(w), arguments(w, 5)), w, o, 1, true).remote());
            ready = ref.isReady();
        }
        tell(ready ? "y" : "n");
    }
}
