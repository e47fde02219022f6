package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;

/** A node of two CPUs for the tests of a class. */
abstract class Cluster {
    @BeforeAll
    static void start() {
        Ray.init(RayConfig.fromProperties().setNumCpus(2).setStoreBytes(256 << 20).setResource("disk", 2).addJvmOptions("-Xmx256m", "-XX:ErrorFile=" + System.getProperty("java.io.tmpdir") + "/jvm-error-%p.log"));
    }

    @AfterAll
    static void stop() throws IOException {
        List<String> complaints = complaints(Path.of(Ray.getSessionDir(), "logs"));
        Ray.shutdown();
        assertEquals(List.of(), complaints);
    }

    /** What -Xcheck:jni says in the workers' outputs; nothing where it is off. */
    private static List<String> complaints(Path logs) throws IOException {
        List<String> found = new ArrayList<>();
        try (var files = Files.list(logs)) {
            for (Path file : (Iterable<Path>) files.filter(f -> f.getFileName().toString().startsWith("worker"))::iterator)
                for (String line : Files.readString(file, StandardCharsets.ISO_8859_1).split("\n"))
                    if (line.contains("in native method") || line.startsWith("WARNING: JNI")) found.add(line);
        }
        return found;
    }
}
