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
import java.util.Arrays;

/**
 * An array of numbers with a shape, in row-major order: what numpy's ndarray is in Python. One that came out of
 * {@link ObjectRef#get} is a read-only view of shared memory, without a copy; the memory stays as long as the tensor or any
 * buffer taken from it is reachable. Immutable as far as libray goes: do not change the array that it was made of before the call
 * that sends it has returned. Any thread may read it.
 */
public final class Tensor {
    private final String dtype;
    private final long[] shape;
    private final Object data;

    Tensor(String dtype, long[] shape, Object data) {
        this.dtype = dtype;
        this.shape = shape;
        this.data = data;
    }

    private static Tensor make(Class<?> element, Object array, long length, long[] shape) {
        long[] full = shape.length == 0 ? new long[] {length} : shape.clone();
        long product = 1;
        for (long extent : full) product = Math.multiplyExact(product, extent);
        if (product != length || Arrays.stream(full).anyMatch(e -> e < 0))
            throw new IllegalArgumentException(length + " elements have no shape " + Arrays.toString(full));
        return new Tensor(dtypeOf(element), full, array);
    }

    /** Of these numbers, which are not copied before it is sent. Without a shape: one dimension. IllegalArgumentException if the shape does not fit. */
    public static Tensor of(double[] data, long... shape) {
        return make(double.class, data, data.length, shape);
    }

    /** As {@link #of(double[], long...)}. */
    public static Tensor of(float[] data, long... shape) {
        return make(float.class, data, data.length, shape);
    }

    /** As {@link #of(double[], long...)}. */
    public static Tensor of(int[] data, long... shape) {
        return make(int.class, data, data.length, shape);
    }

    /** As {@link #of(double[], long...)}. */
    public static Tensor of(long[] data, long... shape) {
        return make(long.class, data, data.length, shape);
    }

    /** As {@link #of(double[], long...)}, of unsigned bytes. */
    public static Tensor of(byte[] data, long... shape) {
        return new Tensor("|u1", make(byte.class, data, data.length, shape).shape, data);
    }

    /** numpy's name of the element type: {@code <f8}, {@code <i4}, "|u1" and so on. */
    public String dtype() {
        return dtype;
    }

    /** The extents; a copy. */
    public long[] shape() {
        return shape.clone();
    }

    /** Number of elements. */
    public long size() {
        long n = 1;
        for (long extent : shape) n *= extent;
        return n;
    }

    Object buffer() {
        return data;
    }

    /** The bytes, little endian and read-only: of a received tensor a view of shared memory. */
    public ByteBuffer bytes() {
        if (data instanceof ByteBuffer) return ((ByteBuffer) data).duplicate().asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
        ByteBuffer copy = ByteBuffer.allocate(Math.toIntExact(Encoded.sizeOf(data))).order(ByteOrder.LITTLE_ENDIAN);
        if (data instanceof double[]) copy.asDoubleBuffer().put((double[]) data);
        else if (data instanceof float[]) copy.asFloatBuffer().put((float[]) data);
        else if (data instanceof int[]) copy.asIntBuffer().put((int[]) data);
        else if (data instanceof long[]) copy.asLongBuffer().put((long[]) data);
        else copy.put((byte[]) data).rewind();
        return copy.asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
    }

    private void mustBe(String type) {
        if (!dtype.equals(type)) throw new IllegalStateException("a tensor of " + dtype + " is not one of " + type);
    }

    /** The elements of a tensor of doubles ({@code <f8}); IllegalStateException for others. */
    public DoubleBuffer asDoubleBuffer() {
        mustBe("<f8");
        return bytes().asDoubleBuffer();
    }

    /** The elements of a tensor of floats ({@code <f4}); IllegalStateException for others. */
    public FloatBuffer asFloatBuffer() {
        mustBe("<f4");
        return bytes().asFloatBuffer();
    }

    /** The elements of a tensor of ints ({@code <i4}); IllegalStateException for others. */
    public IntBuffer asIntBuffer() {
        mustBe("<i4");
        return bytes().asIntBuffer();
    }

    /** The elements of a tensor of longs ({@code <i8}); IllegalStateException for others. */
    public LongBuffer asLongBuffer() {
        mustBe("<i8");
        return bytes().asLongBuffer();
    }

    /** Equal element types, shapes and bytes. */
    @Override
    public boolean equals(Object other) {
        return other instanceof Tensor && dtype.equals(((Tensor) other).dtype) && Arrays.equals(shape, ((Tensor) other).shape)
            && bytes().equals(((Tensor) other).bytes());
    }

    @Override
    public int hashCode() {
        return dtype.hashCode() * 31 + Arrays.hashCode(shape);
    }

    @Override
    public String toString() {
        return "Tensor(" + dtype + ", " + Arrays.toString(shape) + ")";
    }

    // ---- names of types

    /** Whether that shape has as many bytes. numpy's names end in the size of an element: in characters of four bytes for "U". */
    static boolean holds(String dtype, long[] shape, long bytes) {
        java.util.regex.Matcher name = NAME.matcher(dtype);
        if (!name.lookingAt()) return false;
        try {
            long n = Math.multiplyExact(Long.parseLong(name.group(2)), name.group(1).equals("U") ? 4L : 1L);
            for (long extent : shape) {
                if (extent < 0) return false;
                n = Math.multiplyExact(n, extent);
            }
            return n == bytes;
        } catch (ArithmeticException | NumberFormatException e) {
            return false;
        }
    }

    private static final java.util.regex.Pattern NAME = java.util.regex.Pattern.compile("[<>|=]?([a-zA-Z])(\\d+)");

    static String dtypeOf(Class<?> element) {
        if (element == boolean.class) return "|b1";
        if (element == byte.class) return "|i1";
        if (element == short.class) return "<i2";
        if (element == char.class) return "<u2";
        if (element == int.class) return "<i4";
        if (element == long.class) return "<i8";
        return element == float.class ? "<f4" : "<f8";
    }

    static String dtypeOf(Buffer buffer) {
        if (buffer instanceof ByteBuffer) return "|u1";
        if (buffer instanceof ShortBuffer) return "<i2";
        if (buffer instanceof CharBuffer) return "<u2";
        if (buffer instanceof IntBuffer) return "<i4";
        if (buffer instanceof LongBuffer) return "<i8";
        return buffer instanceof FloatBuffer ? "<f4" : "<f8";
    }

    static String bufferName(Buffer buffer) {
        if (buffer instanceof ByteBuffer) return "java.nio.ByteBuffer";
        if (buffer instanceof ShortBuffer) return "java.nio.ShortBuffer";
        if (buffer instanceof CharBuffer) return "java.nio.CharBuffer";
        if (buffer instanceof IntBuffer) return "java.nio.IntBuffer";
        if (buffer instanceof LongBuffer) return "java.nio.LongBuffer";
        return buffer instanceof FloatBuffer ? "java.nio.FloatBuffer" : "java.nio.DoubleBuffer";
    }

    /** This tensor as an array or buffer of that class; null if it is none that tensors turn into. */
    Object as(Class<?> c) {
        if (c.isAssignableFrom(Tensor.class)) return this;
        ByteBuffer b = bytes();
        int n = Math.toIntExact(size());
        if (c == ByteBuffer.class) return b;
        if (c == byte[].class && (dtype.equals("|u1") || dtype.equals("|i1"))) { byte[] a = new byte[n]; b.get(a); return a; }
        if (c == boolean[].class && dtype.equals("|b1")) { boolean[] a = new boolean[n]; for (int i = 0; i < n; i++) a[i] = b.get() != 0; return a; }
        if (dtype.equals("<f8") && c == double[].class) { double[] a = new double[n]; b.asDoubleBuffer().get(a); return a; }
        if (dtype.equals("<f8") && c == DoubleBuffer.class) return b.asDoubleBuffer();
        if (dtype.equals("<f4") && c == float[].class) { float[] a = new float[n]; b.asFloatBuffer().get(a); return a; }
        if (dtype.equals("<f4") && c == FloatBuffer.class) return b.asFloatBuffer();
        if (dtype.equals("<i4") && c == int[].class) { int[] a = new int[n]; b.asIntBuffer().get(a); return a; }
        if (dtype.equals("<i4") && c == IntBuffer.class) return b.asIntBuffer();
        if (dtype.equals("<i8") && c == long[].class) { long[] a = new long[n]; b.asLongBuffer().get(a); return a; }
        if (dtype.equals("<i8") && c == LongBuffer.class) return b.asLongBuffer();
        if (dtype.equals("<i2") && c == short[].class) { short[] a = new short[n]; b.asShortBuffer().get(a); return a; }
        if (dtype.equals("<i2") && c == ShortBuffer.class) return b.asShortBuffer();
        if (dtype.equals("<u2") && c == char[].class) { char[] a = new char[n]; b.asCharBuffer().get(a); return a; }
        if (dtype.equals("<u2") && c == CharBuffer.class) return b.asCharBuffer();
        return null;
    }
}
