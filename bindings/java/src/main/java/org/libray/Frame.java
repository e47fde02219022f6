package org.libray;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/**
 * Memory of one thread through which Java and C hand data to each other; its layout is told in src/main/native/frame.h.
 * Nothing of the user's may run between {@link #begin} and the native call: it could use the same frame.
 */
final class Frame {
    static final int BODY = 16;
    static final int HEADER = 40;
    private static final int FIRST = 64 << 10;
    private static final int KEPT = 8 << 20;
    private static final ThreadLocal<Frame> LOCAL = ThreadLocal.withInitial(Frame::new);

    private ByteBuffer buffer;
    private long address;
    private int capacity;
    private int at;

    private Frame() {
        allocate(FIRST);
    }

    /** The calling thread's. */
    static Frame mine() {
        return LOCAL.get();
    }

    private void allocate(int size) {
        buffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder());
        address = Native.address(buffer);
        capacity = size;
    }

    long address() {
        return address;
    }

    int capacity() {
        return capacity;
    }

    /** Starts a question. A frame that once became very large is made small again. */
    Frame begin() {
        if (capacity > KEPT) allocate(FIRST);
        at = BODY;
        return this;
    }

    /** Goes to the answer. */
    Frame rewind() {
        at = BODY;
        return this;
    }

    /** Room for that many bytes more. */
    Frame ensure(long more) {
        long needed = (long) at + more + 64;
        if (needed > capacity) grow(needed);
        return this;
    }

    private void grow(long needed) {
        if (needed > Integer.MAX_VALUE - 8) throw new IllegalArgumentException("the values of one call are larger than 2 GiB in all");
        ByteBuffer old = buffer;
        int used = at;
        allocate((int) Math.min(Integer.MAX_VALUE - 8, Math.max(needed, 2L * capacity)));
        old.position(0).limit(used);
        buffer.put(old).position(0);
    }

    int position() {
        return at;
    }

    void position(int where) {
        at = where;
    }

    Frame putLong(long x) {
        ensure(8);
        buffer.putLong(at, x);
        at += 8;
        return this;
    }

    Frame putInt(int x) {
        ensure(4);
        buffer.putInt(at, x);
        at += 4;
        return this;
    }

    Frame putDouble(double x) {
        ensure(8);
        buffer.putDouble(at, x);
        at += 8;
        return this;
    }

    Frame putByte(int x) {
        buffer.put(at++, (byte) x);
        return this;
    }

    /** In network order, as MessagePack has it. */
    void putBig(long x, int bytes) {
        for (int i = bytes - 1; i >= 0; i--) buffer.put(at++, (byte) (x >>> (8 * i)));
    }

    void putLongAt(int where, long x) {
        buffer.putLong(where, x);
    }

    void putIntAt(int where, int x) {
        buffer.putInt(where, x);
    }

    Frame putRaw(byte[] bytes, int from, int n) {
        ensure(n + 8L);
        buffer.put(at, bytes, from, n);
        at += n;
        return this;
    }

    /** The bytes that remain in `source`. */
    void putRaw(ByteBuffer source) {
        ensure(source.remaining() + 8L);
        buffer.put(at, source, source.position(), source.remaining());
        at += source.remaining();
    }

    void pad() {
        at = (at + 7) & ~7;
    }

    /** Memory of this frame from here on, to be filled by the caller. */
    ByteBuffer slice(int n) {
        ensure(n + 8L);
        ByteBuffer piece = buffer.slice(at, n).order(ByteOrder.nativeOrder());
        at += n;
        return piece;
    }

    /** A length and bytes; with a nul behind, which the length does not count. */
    Frame putBytes(byte[] bytes) {
        putLong(bytes.length);
        putRaw(bytes, 0, bytes.length);
        buffer.put(at, (byte) 0);
        pad();
        return this;
    }

    Frame putText(String text) {
        return putBytes(text == null ? NONE : text.getBytes(StandardCharsets.UTF_8));
    }

    /** A text of which the nul counts as part of the padding: for words that C reads as plain strings. */
    Frame putWord(String word) {
        byte[] bytes = word.getBytes(StandardCharsets.UTF_8);
        byte[] ended = java.util.Arrays.copyOf(bytes, bytes.length + 1);
        return putBytes(ended);
    }

    Frame putId(Id id) {
        return putRaw(id == null ? Id.NIL.bytes() : id.bytes(), 0, Id.SIZE);
    }

    long getLong() {
        long x = buffer.getLong(at);
        at += 8;
        return x;
    }

    int getInt() {
        int x = buffer.getInt(at);
        at += 4;
        return x;
    }

    byte getByteAt(int where) {
        return buffer.get(where);
    }

    Id getId() {
        byte[] bytes = new byte[Id.SIZE];
        getRaw(bytes, Id.SIZE);
        return new Id(bytes);
    }

    void getRaw(byte[] into, int n) {
        buffer.get(at, into, 0, n);
        at += n;
    }

    /** The whole memory; positions are absolute. */
    ByteBuffer memory() {
        return buffer;
    }

    // ---- the outcome of a call

    long error() {
        return buffer.getLong(0);
    }

    int code() {
        return buffer.getInt(8);
    }

    /** The handle that a call gave, or its error as an exception. */
    long handle(long made) {
        if (made == 0) throw Errors.take(this);
        return made;
    }

    /** Nothing if the call went well, else its error as an exception. */
    void check(int code) {
        if (code != Native.OK) throw Errors.take(this);
    }

    private static final byte[] NONE = {};
}
