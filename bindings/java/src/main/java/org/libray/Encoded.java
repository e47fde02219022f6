package org.libray;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;
import java.util.List;

/** A value made ready: bytes, references and large buffers, which are still where the user has them. */
final class Encoded {
    /** Above this, a value is written straight into shared memory. */
    static final long LARGE = 64 << 10;

    final int format;
    final byte[] data;
    final List<ObjectRef<?>> refs;
    final List<Object> buffers;

    Encoded(int format, byte[] data, List<ObjectRef<?>> refs, List<Object> buffers) {
        this.format = format;
        this.data = data;
        this.refs = refs;
        this.buffers = buffers;
    }

    static Encoded plain(int format, byte[] data) {
        return new Encoded(format, data, List.of(), List.of());
    }

    boolean isLarge() {
        long total = data.length;
        for (Object b : buffers) total += sizeOf(b);
        return total > LARGE;
    }

    /** In a frame: the form that Reader::value takes. `shape`: without the bytes. */
    void write(Frame frame, boolean shape) {
        int header = frame.position();
        frame.putInt(format).putInt(refs.size()).putInt(buffers.size()).putInt(0).putLong(data.length);
        for (ObjectRef<?> ref : refs) frame.putLong(ref.handle());
        int table = frame.position();
        for (Object b : buffers) frame.putLong(0).putLong(sizeOf(b));
        if (shape) return;
        frame.putRaw(data, 0, data.length);
        frame.pad();
        int began = frame.position();
        for (int i = 0; i < buffers.size(); i++) {
            frame.putLongAt(table + 16 * i, frame.position());
            copy(buffers.get(i), frame.slice((int) sizeOf(buffers.get(i))));
            frame.pad();
        }
        frame.putIntAt(header + 12, frame.position() - began);
    }

    /** Fills what writerOpen or returnOpen made; the frame holds the addresses. */
    void fill(Frame frame) {
        frame.rewind();
        long at = frame.getLong();
        if (data.length != 0) Native.view(at, data.length).put(data);
        for (Object b : buffers) {
            long size = sizeOf(b);
            at = frame.getLong();
            if (size != 0) copy(b, Native.view(at, size));
        }
    }

    /** Into the store, without a copy in between. A count for the caller. */
    long put(long runtime) {
        Frame frame = Frame.mine().begin();
        if (!isLarge()) {
            write(frame, false);
            return frame.handle(Native.put(runtime, frame.address()));
        }
        write(frame, true);
        long writer = frame.handle(Native.writerOpen(runtime, frame.address()));
        try {
            fill(frame);
        } catch (Throwable t) {
            Native.writerAbort(writer);
            throw t;
        }
        return frame.handle(Native.writerSeal(writer, true, frame.address()));
    }

    static long sizeOf(Object buffer) {
        if (buffer instanceof byte[]) return ((byte[]) buffer).length;
        if (buffer instanceof boolean[]) return ((boolean[]) buffer).length;
        if (buffer instanceof short[]) return 2L * ((short[]) buffer).length;
        if (buffer instanceof char[]) return 2L * ((char[]) buffer).length;
        if (buffer instanceof int[]) return 4L * ((int[]) buffer).length;
        if (buffer instanceof float[]) return 4L * ((float[]) buffer).length;
        if (buffer instanceof long[]) return 8L * ((long[]) buffer).length;
        if (buffer instanceof double[]) return 8L * ((double[]) buffer).length;
        return ((Buffer) buffer).remaining() * (long) widthOf((Buffer) buffer);
    }

    static int widthOf(Buffer buffer) {
        if (buffer instanceof ByteBuffer) return 1;
        if (buffer instanceof ShortBuffer || buffer instanceof CharBuffer) return 2;
        return buffer instanceof IntBuffer || buffer instanceof FloatBuffer ? 4 : 8;
    }

    private static void copy(Object from, ByteBuffer to) {
        to.order(ByteOrder.LITTLE_ENDIAN);
        if (from instanceof byte[]) to.put((byte[]) from);
        else if (from instanceof boolean[]) for (boolean b : (boolean[]) from) to.put((byte) (b ? 1 : 0));
        else if (from instanceof short[]) to.asShortBuffer().put((short[]) from);
        else if (from instanceof char[]) to.asCharBuffer().put((char[]) from);
        else if (from instanceof int[]) to.asIntBuffer().put((int[]) from);
        else if (from instanceof float[]) to.asFloatBuffer().put((float[]) from);
        else if (from instanceof long[]) to.asLongBuffer().put((long[]) from);
        else if (from instanceof double[]) to.asDoubleBuffer().put((double[]) from);
        else copyBuffer((Buffer) from, to);
    }

    private static void copyBuffer(Buffer from, ByteBuffer to) {
        if (from instanceof ByteBuffer) to.put(((ByteBuffer) from).duplicate());
        else if (from instanceof ShortBuffer) to.asShortBuffer().put(((ShortBuffer) from).duplicate());
        else if (from instanceof CharBuffer) to.asCharBuffer().put(((CharBuffer) from).duplicate());
        else if (from instanceof IntBuffer) to.asIntBuffer().put(((IntBuffer) from).duplicate());
        else if (from instanceof FloatBuffer) to.asFloatBuffer().put(((FloatBuffer) from).duplicate());
        else if (from instanceof LongBuffer) to.asLongBuffer().put(((LongBuffer) from).duplicate());
        else to.asDoubleBuffer().put(((DoubleBuffer) from).duplicate());
    }
}
