package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

/** The samples, each as a program of its own, and what they print. */
class SamplesTest {
    static List<String> run(String main, String... options) throws IOException, InterruptedException {
        List<String> command = new java.util.ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString()));
        command.addAll(List.of(options));
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), main));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String output = new String(process.getInputStream().readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
        assertEquals(0, process.waitFor(), output);
        return output.lines().toList();
    }

    @Test
    void hello() throws Exception {
        assertEquals(List.of("9 81"), run("Hello"));
    }

    @Test
    void parallelMap() throws Exception {
        assertEquals(List.of("10 were ready first; pi is 3.1416"), run("ParallelMap"));
    }

    @Test
    void actorCounter() throws Exception {
        assertEquals(List.of("145"), run("ActorCounter"));
    }

    @Test
    void zeroCopy() throws Exception {
        assertEquals(List.of("4194304 1048576 1000"), run("ZeroCopy"));
    }

    @Test
    void streaming() throws Exception {
        assertEquals(List.of("one", "after", "the", "other", "35 letters"), run("Streaming"));
    }

    @Test
    void faultTolerance() throws Exception {
        assertEquals(List.of("java.lang.NumberFormatException: For input string: \"twelve\"", "second attempt", "kept 0", "cancelled"), run("FaultTolerance"));
    }

    @Test
    void thePageShowsThemAsTheyAre() throws IOException {
        Path root = Path.of(System.getProperty("libray.root"));
        String page = Files.readString(root.resolve("docs/languages/java.md"));
        try (var files = Files.list(root.resolve("samples/java"))) {
            for (Path file : (Iterable<Path>) files::iterator)
                assertTrue(page.contains("```java\n" + Files.readString(file) + "```\n"), file + " differs from docs/languages/java.md");
        }
    }
}
