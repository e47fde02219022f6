package org.libray;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * The cluster's key-value store: small values that are journaled and outlive the programs that wrote them. Linearizable per key. Any thread.
 * Versions of a key only grow; 0 = there is no such key.
 */
public final class KeyValue {
    /** Writes whatever the version is. */
    public static final long ANY = -1;
    private final String ns;

    KeyValue(String ns) {
        this.ns = ns;
    }

    /** A value and its version. */
    public record Entry(byte[] value, long version) {}

    /** The value of a key, or empty. */
    public Optional<Entry> get(byte[] key) {
        Frame frame = Frame.mine().begin();
        frame.putText(ns).putBytes(key);
        int code = Native.kvGet(Session.current().runtime, frame.address(), frame.capacity());
        if (code == Native.NOT_FOUND) {
            Native.errorRelease(frame.error());
            return Optional.empty();
        }
        frame.check(code);
        long version = frame.rewind().getLong();
        return Optional.of(new Entry(KeyValue.bytes(Incoming.read(frame)), version));
    }

    private static byte[] bytes(Object read) {
        return read instanceof Incoming ? (byte[]) ((Incoming) read).decode(byte[].class) : new byte[0];
    }

    /** Stores a value if the key's version is `expected` ({@link #ANY}: in any case); gives the new version. CONFLICT (retryable) if it is another. */
    public long put(byte[] key, byte[] value, long expected) {
        Frame frame = Frame.mine().begin();
        frame.putText(ns).putBytes(key).putBytes(value);
        frame.check(Native.kvPut(Session.current().runtime, expected, frame.address()));
        return frame.rewind().getLong();
    }

    /** Removes a key; `expected` as for {@link #put}. NOT_FOUND if there is none. */
    public void delete(byte[] key, long expected) {
        Frame frame = Frame.mine().begin();
        frame.putText(ns).putBytes(key);
        frame.check(Native.kvDelete(Session.current().runtime, expected, frame.address()));
    }

    /** The keys that start with a prefix. */
    public List<byte[]> list(byte[] prefix) {
        Frame frame = Frame.mine().begin();
        frame.putText(ns).putBytes(prefix);
        frame.check(Native.kvList(Session.current().runtime, frame.address(), frame.capacity()));
        List<byte[]> keys = new ArrayList<>();
        for (Object key : (List<?>) Session.answer(frame.rewind())) keys.add((byte[]) key);
        return keys;
    }
}
