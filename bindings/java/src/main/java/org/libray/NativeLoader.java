package org.libray;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;

/**
 * Finds the native libraries and loads them. In this order: the folder that -Dlibray.home or LIBRAY_HOME names (lib/ and bin/ of an
 * installed or built libray); else what the jar carries, unpacked into a folder of the user's own.
 *
 * <p>Unpacking trusts nothing that others could have put there: the folder and what is above it belong to this user (or root), others may
 * not write to it, no symbolic link is followed, files are made anew and not written over, and each is compared with the jar's list
 * of SHA-256 sums before it is loaded. The folder's name is the sum of that list, so versions live side by side.
 */
final class NativeLoader {
    private static final String ROOT = "/org/libray/native/";
    private static Path directory;

    private NativeLoader() {}

    /** Once per process; UnsatisfiedLinkError says what is missing. */
    static synchronized void load() {
        if (directory != null) return;
        Path found = find();
        System.load(found.resolve("lib/libray.so.0").toString());
        System.load(found.resolve("lib/libray_java.so").toString());
        int version = Native.apiVersion(), built = Native.builtWith();
        // While the major version is 0 a new minor one may change anything; from 1 on a newer minor one will do.
        boolean same = version >> 16 == built >> 16 && (version >> 16 == 0 ? version >> 8 == built >> 8 : version >> 8 >= built >> 8);
        if (!same) throw new UnsatisfiedLinkError("libray " + hex(version) + " does not go with this jar, which was built for " + hex(built));
        directory = found;
    }

    private static String hex(int version) {
        return (version >> 16) + "." + (version >> 8 & 255) + "." + (version & 255);
    }

    /** Where lib/ and bin/ are. After {@link #load}, or in order to start it. */
    static synchronized Path directory() {
        return directory != null ? directory : find();
    }

    private static Path find() {
        String home = System.getProperty("libray.native");
        if (home == null) home = System.getProperty("libray.home");
        if (home == null) home = System.getenv("LIBRAY_HOME");
        if (home != null && !home.isEmpty()) {
            Path place = Path.of(home).toAbsolutePath();
            if (!Files.exists(place.resolve("lib/libray_java.so"))) throw new UnsatisfiedLinkError(place + " holds no lib/libray_java.so (see LIBRAY_HOME)");
            return place;
        }
        try {
            return unpack();
        } catch (IOException e) {
            throw (UnsatisfiedLinkError) new UnsatisfiedLinkError("the native library cannot be unpacked: " + e).initCause(e);
        }
    }

    static String platform() {
        String machine = System.getProperty("os.arch");
        if (machine.equals("amd64")) machine = "x86_64";
        return System.getProperty("os.name").toLowerCase(java.util.Locale.ROOT) + "-" + machine;
    }

    // ---- the cache

    /** The user's folder for what libray unpacks: LIBRAY_CACHE, else XDG_CACHE_HOME/libray, else ~/.cache/libray. */
    static Path cache() throws IOException {
        String given = System.getenv("LIBRAY_CACHE"), xdg = System.getenv("XDG_CACHE_HOME");
        Path cache = given != null && !given.isEmpty() ? Path.of(given)
            : (xdg != null && !xdg.isEmpty() ? Path.of(xdg) : Path.of(System.getProperty("user.home"), ".cache")).resolve("libray");
        cache = cache.toAbsolutePath().normalize();
        if (!Files.isDirectory(cache.getParent())) Files.createDirectories(cache.getParent());
        makeOwnFolder(cache);
        return cache;
    }

    static void makeOwnFolder(Path folder) throws IOException {
        try {
            Files.createDirectory(folder, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
        } catch (FileAlreadyExistsException e) {
            // looked at below, whoever made it
        }
        PosixFileAttributes a = Files.readAttributes(folder, PosixFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
        if (!a.isDirectory()) throw new IOException(folder + " is no directory");
        checkOwner(folder, a);
        if (a.permissions().contains(PosixFilePermission.GROUP_READ) || a.permissions().contains(PosixFilePermission.OTHERS_READ))
            Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx------"));
    }

    private static void checkOwner(Path path, PosixFileAttributes a) throws IOException {
        if (!a.owner().getName().equals(user())) throw new IOException(path + " belongs to " + a.owner().getName() + ", not to " + user());
        Set<PosixFilePermission> p = a.permissions();
        if (p.contains(PosixFilePermission.GROUP_WRITE) || p.contains(PosixFilePermission.OTHERS_WRITE))
            throw new IOException(path + " can be written to by others");
    }

    private static String user() throws IOException {
        return Files.getOwner(Path.of("/proc/self")).getName();
    }

    /** A plain file of this user's that others cannot write to. */
    static boolean isOwnFile(Path file) {
        try {
            PosixFileAttributes a = Files.readAttributes(file, PosixFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
            if (!a.isRegularFile()) return false;
            checkOwner(file, a);
            return true;
        } catch (IOException e) {
            return false;
        }
    }

    // ---- unpacking

    private static byte[] resource(String name) throws IOException {
        try (InputStream in = NativeLoader.class.getResourceAsStream(ROOT + platform() + "/" + name)) {
            if (in == null) throw new IOException("this jar holds no native library for " + platform() + " (" + name + "): install libray and name its folder in LIBRAY_HOME");
            return in.readAllBytes();
        }
    }

    static Path unpack() throws IOException {
        return unpack(cache());
    }

    static Path unpack(Path cache) throws IOException {
        byte[] list = resource("SHA256SUMS");
        Path place = cache.resolve("native-" + sha256(list).substring(0, 32));
        List<String[]> entries = new ArrayList<>();
        for (String line : new String(list, StandardCharsets.UTF_8).split("\n")) entries.add(line.split("  ", 2));
        if (!Files.exists(place, LinkOption.NOFOLLOW_LINKS)) write(place, entries);
        check(place, entries);
        return place;
    }

    // Into a folder of its own name, which gets its name when all is there. Several processes may do so at once.
    private static void write(Path place, List<String[]> entries) throws IOException {
        Path work = Files.createTempDirectory(place.getParent(), "unpack-", PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
        try {
            for (String[] entry : entries) {
                Path file = work.resolve(entry[1]).normalize();
                if (!file.startsWith(work)) throw new IOException("the jar's list names " + entry[1]);
                Files.createDirectories(file.getParent(), PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
                Files.createFile(file, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
                Files.write(file, resource(entry[1]), StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS);
            }
            Files.move(work, place, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException e) {
            if (!Files.isDirectory(place, LinkOption.NOFOLLOW_LINKS)) throw e; // else another process was faster
        } finally {
            remove(work);
        }
    }

    private static void remove(Path folder) throws IOException {
        if (!Files.exists(folder, LinkOption.NOFOLLOW_LINKS)) return;
        try (java.util.stream.Stream<Path> all = Files.walk(folder)) {
            for (Path p : (Iterable<Path>) all.sorted(java.util.Comparator.reverseOrder())::iterator) Files.deleteIfExists(p);
        }
    }

    private static void check(Path place, List<String[]> entries) throws IOException {
        makeOwnFolder(place);
        for (String[] entry : entries) {
            Path file = place.resolve(entry[1]);
            for (Path up = file.getParent(); !up.equals(place); up = up.getParent()) makeOwnFolder(up);
            if (!isOwnFile(file)) throw new IOException(file + " is no plain file of this user's alone: remove " + place);
            try (InputStream in = Files.newInputStream(file, LinkOption.NOFOLLOW_LINKS)) {
                if (!sha256(in.readAllBytes()).equals(entry[0])) throw new IOException(file + " is not what the jar holds: remove " + place);
            }
        }
    }

    static String sha256(byte[] bytes) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every JDK has it
        }
    }
}
