// The Java driver: reads programs from standard input, one line each, and answers on standard output (../SPEC.md).
import java.io.BufferedReader;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.libray.Ray;
import org.libray.RayConfig;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;

public class Driver extends Machine {
    private static final FileOutputStream OUT = new FileOutputStream(FileDescriptor.out);
    private static final BufferedReader IN = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private Driver(long boundMs) {
        super(Driver::say, boundMs, new Object[0], null, 0);
    }

    static synchronized void say(String line) {
        try {
            OUT.write((line + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException e) {
            Runtime.getRuntime().halt(3);
        }
    }

    @Override
    void surroundings(List<String> words) throws Exception {
        if (words.get(0).equals("driver")) {
            List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java", "-cp", System.getProperty("java.class.path"),
                "Driver", "--join", Ray.getSessionDir(), words.get(1), path + ".", bodyOf(words)));
            Process process = new ProcessBuilder(command).redirectInput(new File("/dev/null")).inheritIO().redirectInput(new File("/dev/null")).start();
            int status = process.waitFor();
            tell("x " + (status < 128 ? status : 1000 + status - 128)); // Java says 128 + the signal
            return;
        }
        String line;
        synchronized (IN) {
            say("f " + words.get(1) + " " + words.get(2));
            line = IN.readLine();
        }
        if (line == null) Runtime.getRuntime().halt(3);
        tell(line.startsWith("ok") ? "ok" : "no");
    }

    private static void runAll(String text, long boundMs, String prefix) throws Exception {
        Driver machine = new Driver(boundMs);
        machine.run(text, prefix);
        for (Thread thread : machine.threads.values()) thread.join();
        machine.removeGroups();
    }

    private static long start(String line) {
        Map<String, String> given = options(List.of(line.trim().split(" ")));
        RayConfig config = new RayConfig().setNamespace("model").setNumCpus(Double.parseDouble(given.getOrDefault("cpus", "2")))
            .setStoreBytes(Long.parseLong(given.getOrDefault("store", "67108864")));
        for (String part : given.getOrDefault("resources", "").split(","))
            if (!part.isEmpty()) config.setResource(part.substring(0, part.lastIndexOf(':')), Double.parseDouble(part.substring(part.lastIndexOf(':') + 1)));
        Ray.init(config.setNamespace("model")); // all drivers share it
        Ray.put(0).toCompletableFuture().join(); // makes the thread of the futures, so that it is counted from the start
        say("started " + ProcessHandle.current().pid() + " " + Ray.getSessionDir());
        return (long) Double.parseDouble(given.getOrDefault("bound", "20000"));
    }

    private static void query(String what) throws IOException, InterruptedException {
        System.gc(); // what the program let go of
        Thread.sleep(20);
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            pack(packer, Ray.query(what));
            say("q " + HexFormat.of().formatHex(packer.toByteArray()));
        }
    }

    private static void pack(MessageBufferPacker p, Object x) throws IOException {
        if (x == null) p.packNil();
        else if (x instanceof Boolean) p.packBoolean((Boolean) x);
        else if (x instanceof java.math.BigInteger) p.packBigInteger((java.math.BigInteger) x);
        else if (x instanceof Long || x instanceof Integer) p.packLong(((Number) x).longValue());
        else if (x instanceof Number) p.packDouble(((Number) x).doubleValue());
        else if (x instanceof byte[]) p.packBinaryHeader(((byte[]) x).length).writePayload((byte[]) x);
        else if (x instanceof List) {
            p.packArrayHeader(((List<?>) x).size());
            for (Object item : (List<?>) x) pack(p, item);
        } else if (x instanceof Map) {
            p.packMapHeader(((Map<?, ?>) x).size());
            for (Map.Entry<?, ?> e : ((Map<?, ?>) x).entrySet()) {
                pack(p, e.getKey());
                pack(p, e.getValue());
            }
        } else p.packString(x.toString());
    }

    private static void count() {
        String[] descriptors = new File("/proc/self/fd").list();
        say("n " + (descriptors.length - 1) + " " + Thread.getAllStackTraces().size());
    }

    private static void join(String session, String mode, String prefix, String text) throws Exception {
        Ray.init(new RayConfig().setAddress(session).setNamespace("model"));
        runAll(text, 20_000, prefix);
        if (mode.equals("die")) kill();
        if (mode.equals("leave")) Runtime.getRuntime().halt(0);
        Ray.shutdown();
    }

    public static void main(String[] args) throws Exception {
        if (args.length == 5 && args[0].equals("--join")) {
            join(args[1], args[2], args[3], args[4]);
            return;
        }
        long boundMs = 20_000;
        String line;
        while (true) {
            synchronized (IN) {
                line = IN.readLine();
            }
            if (line == null) return;
            if (line.startsWith("init")) boundMs = start(line.substring(4));
            else if (line.startsWith("run ")) {
                runAll(line.substring(4), boundMs, "");
                say("done");
            } else if (line.startsWith("query ")) query(line.substring(6));
            else if (line.equals("count")) count();
            else if (line.equals("end")) {
                Ray.shutdown();
                say("bye RAY_OK");
                return;
            }
        }
    }
}
