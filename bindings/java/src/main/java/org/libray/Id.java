package org.libray;

import java.util.Arrays;
import java.util.HexFormat;

/**
 * Identifier of a task, object, actor, node, job or placement group: 24 bytes, a plain value that may be kept, compared and
 * printed. Immutable.
 */
public final class Id implements java.io.Serializable, Comparable<Id> {
    private static final long serialVersionUID = 1;
    static final int SIZE = 24;
    /** The id of nothing: all bytes are zero. */
    public static final Id NIL = new Id(new byte[SIZE]);

    private final byte[] bytes;

    Id(byte[] bytes) {
        this.bytes = bytes;
    }

    byte[] bytes() {
        return bytes;
    }

    /** An id from its 48 hexadecimal digits, as {@link #toString} gives them; IllegalArgumentException for anything else. */
    public static Id fromHex(String digits) {
        byte[] bytes = HexFormat.of().parseHex(digits);
        if (bytes.length != SIZE) throw new IllegalArgumentException("an id has 48 hexadecimal digits: " + digits);
        return new Id(bytes);
    }

    /** A copy of the 24 bytes. */
    public byte[] toBytes() {
        return bytes.clone();
    }

    /** Whether this is the id of nothing. */
    public boolean isNil() {
        return equals(NIL);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Id && Arrays.equals(bytes, ((Id) other).bytes);
    }

    @Override
    public int hashCode() {
        return Arrays.hashCode(bytes);
    }

    @Override
    public int compareTo(Id other) {
        return Arrays.compareUnsigned(bytes, other.bytes);
    }

    /** 48 hexadecimal digits. */
    @Override
    public String toString() {
        return HexFormat.of().formatHex(bytes);
    }
}
