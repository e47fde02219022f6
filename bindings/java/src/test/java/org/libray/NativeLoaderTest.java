package org.libray;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class NativeLoaderTest {
    @Test
    void unpacksOnceForTheOwnerAlone(@TempDir Path temp) throws IOException {
        Path cache = temp.resolve("cache");
        NativeLoader.makeOwnFolder(cache);
        Path place = NativeLoader.unpack(cache);
        assertEquals("rwx------", PosixFilePermissions.toString(Files.getPosixFilePermissions(place)));
        assertTrue(Files.isExecutable(place.resolve("bin/rayd")));
        Object first = Files.getLastModifiedTime(place.resolve("lib/libray.so.0"));
        assertEquals(place, NativeLoader.unpack(cache));
        assertEquals(first, Files.getLastModifiedTime(place.resolve("lib/libray.so.0")));
        try (var all = Files.list(cache)) {
            assertEquals(1, all.count(), "nothing is left of the work");
        }
    }

    @Test
    void refusesWhatIsNotTheJars(@TempDir Path temp) throws IOException {
        Path place = NativeLoader.unpack(temp);
        Path library = place.resolve("lib/libray.so.0");
        byte[] good = Files.readAllBytes(library);
        good[5000] ^= 1;
        Files.write(library, good);
        IOException e = assertThrows(IOException.class, () -> NativeLoader.unpack(temp));
        assertTrue(e.getMessage().contains("is not what the jar holds"), e.getMessage());
    }

    @Test
    void refusesLinks(@TempDir Path temp) throws IOException {
        Path cache = temp.resolve("cache"), other = temp.resolve("other");
        NativeLoader.makeOwnFolder(cache);
        Path place = NativeLoader.unpack(cache);
        Files.move(place, other);
        Files.createSymbolicLink(place, other);
        assertThrows(IOException.class, () -> NativeLoader.unpack(cache), "a link to a good folder");
        Files.delete(place);
        Files.move(other, place);
        Path library = place.resolve("lib/libray.so.0"), moved = temp.resolve("moved");
        Files.move(library, moved);
        Files.createSymbolicLink(library, moved);
        assertThrows(IOException.class, () -> NativeLoader.unpack(cache), "a link to a good file");
    }

    @Test
    void refusesWhatOthersMayWrite(@TempDir Path temp) throws IOException {
        Path place = NativeLoader.unpack(temp);
        Files.setPosixFilePermissions(place, PosixFilePermissions.fromString("rwxrwxrwx"));
        assertThrows(IOException.class, () -> NativeLoader.unpack(temp));
        Files.setPosixFilePermissions(place, PosixFilePermissions.fromString("rwx------"));
        Path library = place.resolve("lib/libray.so.0");
        Files.setPosixFilePermissions(library, PosixFilePermissions.fromString("rwxrwx---"));
        assertThrows(IOException.class, () -> NativeLoader.unpack(temp));
        assertFalse(NativeLoader.isOwnFile(library));
    }
}
