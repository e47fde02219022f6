package org.libray;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A value that came out of C. Small ones were copied into the frame; others lie in a ray_buffer that is released when it was
 * decoded and nothing shows its memory any more. One thread; {@link #decode} once.
 */
final class Incoming {
    final int format;
    private final int nRefs, nBuffers;
    private final long size, buffer, address;
    private byte[] data;
    private final AtomicInteger shares = new AtomicInteger(1);

    private Incoming(int format, int nRefs, int nBuffers, long size, long buffer, long address, byte[] data) {
        this.format = format;
        this.nRefs = nRefs;
        this.nBuffers = nBuffers;
        this.size = size;
        this.buffer = buffer;
        this.address = address;
        this.data = data;
    }

    static Incoming ofBytes(int format, byte[] data) {
        return new Incoming(format, 0, 0, data.length, 0, 0, data);
    }

    /** The next value of the frame: a scalar as itself, any other as Incoming, to be decoded when the frame is free. */
    static Object read(Frame frame) {
        int format = frame.getInt(), nRefs = frame.getInt(), nBuffers = frame.getInt();
        boolean follows = frame.getInt() == 1;
        long size = frame.getLong(), buffer = frame.getLong(), address = frame.getLong();
        if (!follows) return new Incoming(format, nRefs, nBuffers, size, buffer, address, null);
        int began = frame.position(), n = (int) size;
        frame.position((began + n + 7) & ~7);
        if (n == 0 && format != Native.JAVA) return format == Native.RAW ? new Incoming(format, 0, 0, 0, 0, 0, new byte[0]) : null;
        if (format == Native.MSGPACK) {
            Object scalar = scalar(frame.memory(), began, n);
            if (scalar != NONE) return scalar;
        }
        byte[] copy = new byte[n];
        frame.memory().get(began, copy, 0, n);
        return new Incoming(format, 0, 0, n, 0, 0, copy);
    }

    /** What {@link #read} gave, as the user is to see it. */
    static Object resolve(Object read, java.lang.reflect.Type hint) {
        if (read instanceof Incoming) return ((Incoming) read).decode(hint);
        return hint == null || read == null ? read : Coerce.to(read, hint);
    }

    private static final Object NONE = new Object();

    // The commonest values, without more ado; NONE for all others. The frame's memory has C's byte order, the value network order.
    private static Object scalar(ByteBuffer b, int at, int n) {
        int tag = b.get(at) & 0xff;
        if (n == 1) {
            if (tag < 0x80 || tag >= 0xe0) return (long) (byte) tag;
            if (tag == 0xc0) return null;
            if (tag == 0xc3) return Boolean.TRUE;
            if (tag == 0xc2) return Boolean.FALSE;
        }
        if (tag == 0xd6 && n == 6 && isInt(b, at + 1)) return (int) b.get(at + 5);
        if (tag == 0xc7 && n == 11 && isInt(b, at + 2) && b.get(at + 6) == (byte) 0xd2) return big32(b, at + 7);
        if (tag == 0xd2 && n == 5) return (long) big32(b, at + 1);
        if (tag == 0xd3 && n == 9) return big64(b, at + 1);
        if (tag == 0xcb && n == 9) return Double.longBitsToDouble(big64(b, at + 1));
        if (tag == 0xca && n == 5) return Float.intBitsToFloat(big32(b, at + 1));
        if (tag >= 0xa0 && tag < 0xc0 && n == 1 + (tag & 31)) return text(b, at + 1, n - 1);
        if (tag == 0xd9 && n == 2 + (b.get(at + 1) & 0xff)) return text(b, at + 2, n - 2);
        return NONE;
    }

    // The head of an int, see Encoder: its type, and the name "I".
    private static boolean isInt(ByteBuffer b, int at) {
        return b.get(at) == Ext.NAMED && b.get(at + 1) == (byte) 0x92 && b.get(at + 2) == (byte) 0xa1 && b.get(at + 3) == 'I';
    }

    private static int big32(ByteBuffer b, int at) {
        int x = b.getInt(at);
        return b.order() == ByteOrder.BIG_ENDIAN ? x : Integer.reverseBytes(x);
    }

    private static long big64(ByteBuffer b, int at) {
        long x = b.getLong(at);
        return b.order() == ByteOrder.BIG_ENDIAN ? x : Long.reverseBytes(x);
    }

    // NONE for what is no UTF-8: the decoder tells why.
    private static Object text(ByteBuffer b, int at, int n) {
        byte[] utf8 = new byte[n];
        b.get(at, utf8, 0, n);
        String text = new String(utf8, StandardCharsets.UTF_8);
        return text.indexOf('\ufffd') < 0 || java.util.Arrays.equals(text.getBytes(StandardCharsets.UTF_8), utf8) ? text : NONE;
    }

    /** The value, of the given type where one is known. Consumes this. */
    Object decode(java.lang.reflect.Type hint) {
        try {
            return new Decoder(this, readRefs(), readBuffers()).read(hint);
        } finally {
            drop();
        }
    }

    /** Lets go without a look. */
    void drop() {
        if (buffer != 0 && shares.decrementAndGet() == 0) Handles.release(Native.BUFFER, buffer);
    }

    private ObjectRef<?>[] readRefs() {
        ObjectRef<?>[] refs = new ObjectRef<?>[nRefs];
        if (nRefs == 0) return refs;
        Frame frame = Frame.mine().begin().ensure(8L * nRefs);
        frame.check(Native.bufferRefs(buffer, frame.address()));
        frame.rewind();
        for (int i = 0; i < nRefs; i++) refs[i] = ObjectRef.adopt(frame.getLong(), null);
        return refs;
    }

    private long[] readBuffers() {
        long[] pairs = new long[2 * nBuffers];
        if (nBuffers == 0) return pairs;
        Frame frame = Frame.mine().begin().ensure(16L * nBuffers);
        Native.bufferOob(buffer, frame.address());
        frame.rewind();
        for (int i = 0; i < pairs.length; i++) pairs[i] = frame.getLong();
        return pairs;
    }

    /** The bytes, copied. */
    byte[] bytes() {
        if (data == null) {
            if (size > Integer.MAX_VALUE - 8) throw tooLarge(size);
            data = new byte[(int) size];
            if (size != 0) Native.view(address, size).get(data);
        }
        return data;
    }

    /** The bytes in place, read-only. */
    ByteBuffer view() {
        return data != null ? ByteBuffer.wrap(data).asReadOnlyBuffer() : view(address, size);
    }

    /** Memory of this value, read-only; it stays as long as the result, or any buffer made of it, can be reached. */
    ByteBuffer view(long at, long n) {
        if (n > Integer.MAX_VALUE) throw tooLarge(n);
        if (n == 0) return ByteBuffer.allocate(0).asReadOnlyBuffer();
        ByteBuffer root = Native.view(at, n); // slices and views of it keep it reachable
        Handles.share(root, Native.BUFFER, buffer, shares);
        return root.asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
    }

    private static IllegalArgumentException tooLarge(long n) {
        return new IllegalArgumentException("a buffer of " + n + " bytes is larger than 2 GiB, the most that a ByteBuffer can show: send it in parts");
    }
}
