package org.libray;

import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** The command that starts a worker: this JVM with a small heap, libray's jars first on the class path, then the program's. */
final class WorkerCommand {
    private WorkerCommand() {}

    static List<String> of(List<String> classPath, List<String> options) {
        List<String> command = new ArrayList<>(base());
        Path archive = SharedClasses.ready();
        if (archive != null) command.add("-XX:SharedArchiveFile=" + archive);
        command.add("-Dlibray.native=" + NativeLoader.directory());
        command.addAll(options);
        command.add("-cp");
        command.add(String.join(File.pathSeparator, fullClassPath(classPath)));
        command.add(WorkerMain.class.getName());
        return command;
    }

    /**
     * The JVM and what makes it small: one collector thread, a heap that starts with 8 MB and gives memory back, no shared statistics
     * file. Both compilers stay, for tasks compute.
     */
    static List<String> base() {
        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        List<String> words = new ArrayList<>(List.of(java, "-XX:+UseSerialGC", "-Xms8m", "-XX:MinHeapFreeRatio=10",
            "-XX:MaxHeapFreeRatio=30", "-XX:-UsePerfData", "-Xshare:auto"));
        if (Runtime.version().feature() >= 22) words.add("--enable-native-access=ALL-UNNAMED"); // no warning about JNI
        return words;
    }

    /** libray's own jars: what every worker loads first. */
    static List<String> ownClassPath() {
        return List.of(placeOf(Ray.class), placeOf(org.msgpack.core.MessagePack.class));
    }

    private static List<String> fullClassPath(List<String> given) {
        Set<String> entries = new LinkedHashSet<>(ownClassPath());
        List<String> rest = given != null ? given : List.of(System.getProperty("java.class.path", "").split(File.pathSeparator));
        for (String entry : rest) if (!entry.isEmpty()) entries.add(absolute(entry));
        return new ArrayList<>(entries);
    }

    // The workers start in the driver's directory, but a task may have another; "lib/*" stays what it is.
    private static String absolute(String entry) {
        return new File(entry).getAbsolutePath();
    }

    private static String placeOf(Class<?> c) {
        try {
            Path place = Path.of(c.getProtectionDomain().getCodeSource().getLocation().toURI());
            if (!Files.exists(place)) throw new IllegalStateException(place + " has gone");
            return place.toString();
        } catch (java.net.URISyntaxException | RuntimeException e) {
            throw new IllegalStateException("the jar of " + c.getName() + " is no file that workers could load: " + e, e);
        }
    }
}
