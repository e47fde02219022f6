package org.libray;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * The archive of loaded classes (class-data sharing) that workers map instead of loading libray's classes and the JDK's anew: it
 * saves time at their start, and memory, for they share it. Made once for each JVM and version of libray, beside the unpacked
 * native library, by a JVM that runs in the background of the first program; later programs use it. -Dlibray.cds=off turns
 * it off. Its files are found by the content of libray's jars, so a stale one is never used.
 */
final class SharedClasses {
    private SharedClasses() {}

    private static boolean isOn() {
        return !"off".equals(System.getProperty("libray.cds")) && WorkerCommand.ownClassPath().stream().allMatch(p -> p.endsWith(".jar"));
    }

    private static Path place() throws IOException {
        StringBuilder key = new StringBuilder(System.getProperty("java.vm.version")).append(System.getProperty("java.home"));
        for (String jar : WorkerCommand.ownClassPath())
            key.append('|').append(jar).append(Files.size(Path.of(jar))).append(Files.getLastModifiedTime(Path.of(jar)).toMillis());
        return NativeLoader.cache().resolve("classes-" + NativeLoader.sha256(key.toString().getBytes(java.nio.charset.StandardCharsets.UTF_8)).substring(0, 32) + ".jsa");
    }

    /** The archive if it is there, else null. */
    static Path ready() {
        try {
            Path archive = isOn() ? place() : null;
            return archive != null && NativeLoader.isOwnFile(archive) ? archive : null;
        } catch (IOException | RuntimeException e) {
            return null;
        }
    }

    /** Starts making the archive if it is missing, without waiting for it. */
    static void prepare() {
        if (!isOn() || ready() != null) return;
        Thread thread = new Thread(null, () -> {
            try {
                make();
            } catch (IOException | InterruptedException | RuntimeException e) {
                // workers start without it, a little slower
            }
        }, "libray-shared-classes", 256 << 10);
        thread.setDaemon(true);
        thread.start();
    }

    // The program may end before the archive is written: then the shell still gives it its name, or removes what there is.
    private static final String FINISH = "a=$1; shift; if \"$@\"; then mv -f \"$0\" \"$a\"; else rm -f \"$0\"; fi";

    /** Makes the archive now, and returns where it is. */
    static Path make() throws IOException, InterruptedException {
        Path archive = place();
        Path work = Files.createTempFile(archive.getParent(), "classes-", ".tmp");
        List<String> command = new ArrayList<>(WorkerCommand.base());
        command.add("-XX:ArchiveClassesAtExit=" + work);
        command.add("-Dlibray.native=" + NativeLoader.directory());
        command.add("-cp");
        command.add(String.join(File.pathSeparator, WorkerCommand.ownClassPath()));
        command.add(WorkerMain.class.getName());
        command.add(WorkerMain.REHEARSE);
        Files.delete(work); // the JVM wants to make it
        List<String> all = new ArrayList<>(List.of("/bin/sh", "-c", FINISH, work.toString(), archive.toString()));
        all.addAll(command);
        ProcessBuilder builder = new ProcessBuilder(all).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD);
        builder.environment().keySet().removeIf(name -> name.startsWith("LIBRAY_"));
        Process process = builder.start();
        if (!process.waitFor(60, TimeUnit.SECONDS)) process.destroyForcibly();
        return archive;
    }
}
