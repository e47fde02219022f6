package org.libray;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectOutputStream;
import java.math.BigInteger;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePacker;

/**
 * Java values to the bytes of ray.h. Two ways: for Java, where what comes out must equal what went in, class and all; and for
 * other languages, where only what they can read may go in. What MessagePack cannot say goes by Java's serialisation (for Java),
 * or is refused with a word about what would do (for others).
 */
final class Encoder {
    private static final int MAX_DEPTH = 96;
    private static final Set<Class<?>> LISTS = classes(ArrayList.class, List.of().getClass(), List.of(1).getClass(),
        Arrays.asList(1).getClass(), Collections.emptyList().getClass(), Collections.singletonList(1).getClass(),
        Collections.unmodifiableList(new ArrayList<>()).getClass(), java.util.stream.Stream.of(1).toList().getClass());
    private static final Set<Class<?>> MAPS = classes(HashMap.class, LinkedHashMap.class, Map.of().getClass(),
        Map.of(1, 1).getClass(), Collections.emptyMap().getClass(), Collections.singletonMap(1, 1).getClass(),
        Collections.unmodifiableMap(new HashMap<>()).getClass());
    private static final Set<Class<?>> SETS = classes(HashSet.class, Set.of().getClass(), Set.of(1).getClass());

    private static Set<Class<?>> classes(Class<?>... all) {
        return new HashSet<>(Arrays.asList(all)); // some of them are one class
    }

    /** Cannot be said in this form; never leaves this class. */
    private static final class Unfit extends RuntimeException {
        private static final long serialVersionUID = 1;

        Unfit(String what) {
            super(what, null, false, false);
        }
    }

    private final boolean foreign;
    private final List<ObjectRef<?>> refs = new ArrayList<>();
    private final List<Object> buffers = new ArrayList<>();

    private Encoder(boolean foreign) {
        this.foreign = foreign;
    }

    /** Values that {@link #write} writes as they are. */
    static boolean isScalar(Object x) {
        return x == null || x instanceof Integer || x instanceof Long || x instanceof Double || x instanceof String
            || x instanceof Boolean || x instanceof Float;
    }

    /**
     * A scalar as it is, any other value as {@link Encoded}. `foreign`: for a reader of another language. IllegalArgumentException
     * for what cannot cross; `what` names the value in its message.
     */
    static Object prepare(Object value, boolean foreign, String what) {
        if (isScalar(value)) return value;
        if (value instanceof byte[]) return Encoded.plain(Native.RAW, (byte[]) value);
        Encoder encoder = new Encoder(foreign);
        try {
            return encoder.messagePack(value);
        } catch (Unfit unfit) {
            if (foreign) throw new IllegalArgumentException(what + " cannot cross to another language: " + unfit.getMessage());
            return new Encoder(false).serialise(value, what);
        }
    }

    /** What {@link #prepare} gave, into the frame. */
    static void write(Frame frame, Object prepared) {
        if (prepared instanceof Encoded) ((Encoded) prepared).write(frame, false);
        else writeScalar(frame, prepared);
    }

    // ---- scalars, straight into the frame

    static void writeScalar(Frame frame, Object x) {
        frame.ensure(64);
        int size = frame.position() + 16;
        frame.putInt(Native.MSGPACK).putInt(0).putLong(0).putLong(0);
        int began = frame.position();
        if (x == null) frame.putByte(0xc0);
        else if (x instanceof Integer) writeInt(frame, (Integer) x);
        else if (x instanceof Long) writeLong(frame, (Long) x);
        else if (x instanceof Double) writeWide(frame, 0xcb, Double.doubleToRawLongBits((Double) x), 8);
        else if (x instanceof Boolean) frame.putByte((Boolean) x ? 0xc3 : 0xc2);
        else if (x instanceof Float) writeWide(frame, 0xca, Float.floatToRawIntBits((Float) x), 4);
        else writeText(frame, (String) x);
        frame.putLongAt(size, frame.position() - began);
        frame.pad();
    }

    private static void writeWide(Frame frame, int tag, long bits, int bytes) {
        frame.putByte(tag);
        frame.putBig(bits, bytes);
    }

    // A whole number is a long to all readers; an int has the name "I", so that it comes back as an int. Six or eleven bytes.
    private static void writeInt(Frame frame, int x) {
        if (isSmall(x)) {
            frame.putByte(0xd6).putByte(Ext.NAMED).putByte(0x92).putByte(0xa1).putByte('I').putByte(x);
        } else {
            frame.putByte(0xc7).putByte(8).putByte(Ext.NAMED).putByte(0x92).putByte(0xa1).putByte('I');
            writeWide(frame, 0xd2, x, 4);
        }
    }

    private static boolean isSmall(long x) {
        return x >= -32 && x < 128;
    }

    private static void writeLong(Frame frame, long x) {
        if (isSmall(x)) frame.putByte((int) x);
        else writeWide(frame, 0xd3, x, 8);
    }

    private static void writeText(Frame frame, String s) {
        byte[] utf8 = utf8(s);
        int n = utf8.length;
        if (n < 32) frame.putByte(0xa0 | n);
        else if (n < 256) writeWide(frame, 0xd9, n, 1);
        else if (n < 65536) writeWide(frame, 0xda, n, 2);
        else writeWide(frame, 0xdb, n, 4);
        frame.putRaw(utf8, 0, n);
    }

    /** Lone surrogates are no text: refused, not replaced. */
    static byte[] utf8(String s) {
        byte[] bytes = s.getBytes(StandardCharsets.UTF_8);
        if (bytes.length == s.length()) {
            if (isAscii(s)) return bytes; // what is not ASCII takes more than one byte, or was replaced by one
            throw new IllegalArgumentException("a string with half of a surrogate pair is no Unicode text");
        }
        if (!new String(bytes, StandardCharsets.UTF_8).equals(s))
            throw new IllegalArgumentException("a string with half of a surrogate pair is no Unicode text");
        return bytes;
    }

    private static boolean isAscii(String s) {
        for (int i = 0; i < s.length(); i++) if (s.charAt(i) > 127) return false;
        return true;
    }

    // ---- everything else

    private Encoded messagePack(Object value) {
        try {
            MessageBufferPacker packer = MessagePack.newDefaultBufferPacker();
            pack(packer, value, 0);
            return new Encoded(Native.MSGPACK, packer.toByteArray(), refs, buffers);
        } catch (IOException e) {
            throw new IllegalStateException(e); // a buffer in memory does not fail
        }
    }

    private void pack(MessagePacker p, Object x, int depth) throws IOException {
        if (depth > MAX_DEPTH) throw new Unfit("it is nested deeper than " + MAX_DEPTH + " levels");
        if (x == null) p.packNil();
        else if (x instanceof Integer) packInt(p, (Integer) x);
        else if (x instanceof Long) packLong(p, (Long) x);
        else if (x instanceof Double) p.packDouble((Double) x);
        else if (x instanceof Boolean) p.packBoolean((Boolean) x);
        else if (x instanceof Float) packFloat(p, (Float) x);
        else if (x instanceof String) packText(p, (String) x);
        else if (x instanceof byte[]) packBytes(p, (byte[]) x);
        else if (isUnsigned(x)) p.packBigInteger((BigInteger) x);
        else if (x instanceof ObjectRef) packRef(p, Ext.REF, (ObjectRef<?>) x);
        else if (x instanceof ActorHandle) packRef(p, Ext.ACTOR, ((ActorHandle<?>) x).toRef());
        else if (x instanceof Instant) p.packTimestamp((Instant) x);
        else if (x instanceof Record) packRecord(p, (Record) x, depth);
        else if (x instanceof Tensor) packTensor(p, ((Tensor) x).dtype(), ((Tensor) x).shape(), ((Tensor) x).buffer());
        else if (x.getClass().isArray()) packArray(p, x, depth);
        else if (x instanceof Buffer) packBuffer(p, (Buffer) x, depth);
        else if (foreign) packForeign(p, x, depth);
        else packOwn(p, x, depth);
    }

    // From 2^63 to 2^64-1: what every language reads as a number, and Java as a BigInteger again.
    private static boolean isUnsigned(Object x) {
        return x.getClass() == BigInteger.class && ((BigInteger) x).bitLength() == 64 && ((BigInteger) x).signum() > 0;
    }

    private void packInt(MessagePacker p, int x) throws IOException {
        if (foreign) p.packInt(x);
        else if (isSmall(x)) p.packExtensionTypeHeader((byte) Ext.NAMED, 4).writePayload(new byte[] {(byte) 0x92, (byte) 0xa1, 'I', (byte) x});
        else p.packExtensionTypeHeader((byte) Ext.NAMED, 8).writePayload(new byte[] {(byte) 0x92, (byte) 0xa1, 'I', (byte) 0xd2, (byte) (x >> 24), (byte) (x >> 16), (byte) (x >> 8), (byte) x});
    }

    private static void packLong(MessagePacker p, long x) throws IOException {
        p.packLong(x);
    }

    private void packFloat(MessagePacker p, float x) throws IOException {
        if (foreign) p.packDouble(x);
        else p.packFloat(x);
    }

    private static void packText(MessagePacker p, String s) throws IOException {
        byte[] utf8 = utf8(s);
        p.packRawStringHeader(utf8.length).writePayload(utf8);
    }

    private static void packBytes(MessagePacker p, byte[] bytes) throws IOException {
        p.packBinaryHeader(bytes.length).writePayload(bytes);
    }

    private void packRef(MessagePacker p, int type, ObjectRef<?> ref) throws IOException {
        p.packExtensionTypeHeader((byte) type, 4);
        p.addPayload(ByteBuffer.allocate(4).putInt(0, indexOf(ref)).array());
    }

    private int indexOf(ObjectRef<?> ref) {
        refs.add(ref);
        return refs.size() - 1;
    }

    private interface Body {
        void pack(MessagePacker p) throws IOException;
    }

    // [name, value] as an extension. Its length stands in front of it, so it is made apart.
    private static void named(MessagePacker p, String name, Body body) throws IOException {
        MessageBufferPacker inner = MessagePack.newDefaultBufferPacker();
        inner.packArrayHeader(2).packString(name);
        body.pack(inner);
        byte[] bytes = inner.toByteArray();
        p.packExtensionTypeHeader((byte) Ext.NAMED, bytes.length).addPayload(bytes);
    }

    // The plain form for others, the named one for Java.
    private void marked(MessagePacker p, String name, Body body) throws IOException {
        if (foreign) body.pack(p);
        else named(p, name, body);
    }

    private void packRecord(MessagePacker p, Record record, int depth) throws IOException {
        RecordShape shape = RecordShape.of(record.getClass());
        marked(p, record.getClass().getName(), inner -> {
            inner.packMapHeader(shape.size());
            for (int i = 0; i < shape.size(); i++) {
                inner.packString(shape.name(i));
                pack(inner, shape.get(record, i), depth + 1);
            }
        });
    }

    private void packTensor(MessagePacker p, String dtype, long[] shape, Object buffer) throws IOException {
        MessageBufferPacker inner = MessagePack.newDefaultBufferPacker();
        inner.packArrayHeader(3).packString(dtype).packArrayHeader(shape.length);
        for (long extent : shape) inner.packLong(extent);
        inner.packInt(buffers.size());
        buffers.add(buffer);
        byte[] bytes = inner.toByteArray();
        p.packExtensionTypeHeader((byte) Ext.TENSOR, bytes.length).addPayload(bytes);
    }

    private void packArray(MessagePacker p, Object array, int depth) throws IOException {
        Class<?> element = array.getClass().getComponentType();
        if (element.isPrimitive()) {
            String dtype = Tensor.dtypeOf(element);
            if (foreign && element == char.class) throw new Unfit("it holds a char[]; a String would do");
            long[] shape = {java.lang.reflect.Array.getLength(array)};
            marked(p, array.getClass().getName(), inner -> packTensor(inner, dtype, shape, array));
            return;
        }
        Object[] items = (Object[]) array;
        marked(p, array.getClass().getName(), inner -> packItems(inner, Arrays.asList(items), depth));
    }

    private void packItems(MessagePacker p, Collection<?> items, int depth) throws IOException {
        p.packArrayHeader(items.size());
        for (Object item : items) pack(p, item, depth + 1);
    }

    private void packEntries(MessagePacker p, Map<?, ?> map, int depth) throws IOException {
        p.packMapHeader(map.size());
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            Object key = entry.getKey();
            if (foreign && !isKey(key))
                throw new Unfit("a map has a key of " + nameOf(key) + "; keys are strings, integers, booleans or bytes");
            pack(p, key, depth + 1);
            pack(p, entry.getValue(), depth + 1);
        }
    }

    private static boolean isKey(Object key) {
        return key instanceof String || key instanceof Integer || key instanceof Long || key instanceof Boolean
            || key instanceof byte[] || key instanceof Short || key instanceof Byte;
    }

    private void packBuffer(MessagePacker p, Buffer buffer, int depth) throws IOException {
        String name = Tensor.bufferName(buffer);
        String dtype = Tensor.dtypeOf(buffer);
        if (foreign && buffer instanceof java.nio.CharBuffer) throw new Unfit("it holds a CharBuffer; a String would do");
        marked(p, name, inner -> packTensor(inner, dtype, new long[] {buffer.remaining()}, buffer));
    }

    private static String nameOf(Object x) {
        return x == null ? "null" : x.getClass().getName();
    }

    private void packForeign(MessagePacker p, Object x, int depth) throws IOException {
        if (x instanceof Map) packEntries(p, (Map<?, ?>) x, depth);
        else if (x instanceof Collection) packItems(p, (Collection<?>) x, depth);
        else if (x instanceof Short || x instanceof Byte) p.packInt(((Number) x).intValue());
        else if (x instanceof BigInteger) packBig(p, (BigInteger) x);
        else throw new Unfit("it holds a " + nameOf(x) + "; records, maps, lists, numbers, strings, bytes, arrays, tensors, "
            + "Instant, references and actor handles would do");
    }

    private static void packBig(MessagePacker p, BigInteger x) throws IOException {
        if (x.bitLength() > 63 && !isUnsigned(x)) throw new Unfit("it holds the integer " + x + "; from -2^63 to 2^64-1 they cross");
        p.packBigInteger(x);
    }

    private void packOwn(MessagePacker p, Object x, int depth) throws IOException {
        Class<?> c = x.getClass();
        if (LISTS.contains(c)) packItems(p, (Collection<?>) x, depth);
        else if (MAPS.contains(c)) packEntries(p, (Map<?, ?>) x, depth);
        else if (SETS.contains(c)) named(p, "java.util.HashSet", inner -> packItems(inner, (Collection<?>) x, depth));
        else if (c == LinkedHashSet.class) named(p, c.getName(), inner -> packItems(inner, (Collection<?>) x, depth));
        else if (c == Short.class || c == Byte.class) named(p, c.getName(), inner -> inner.packInt(((Number) x).intValue()));
        else if (c == Character.class) named(p, c.getName(), inner -> inner.packInt((Character) x));
        else if (depth == 0) throw new Unfit("");
        else packSerialised(p, x);
    }

    private void packSerialised(MessagePacker p, Object x) throws IOException {
        byte[] bytes = javaBytes(x, "a " + nameOf(x) + " inside of a value");
        p.packExtensionTypeHeader((byte) Ext.JAVA, bytes.length).addPayload(bytes);
    }

    // ---- Java's serialisation

    private Encoded serialise(Object value, String what) {
        byte[] bytes = javaBytes(value, what);
        return new Encoded(Native.JAVA, bytes, refs, List.of());
    }

    private byte[] javaBytes(Object value, String what) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        List<ObjectRef<?>> before = WRITING.get();
        WRITING.set(refs);
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            out.writeObject(value);
        } catch (IOException | StackOverflowError e) {
            throw new IllegalArgumentException(what + " cannot be serialised: " + e
                + " (records, collections of them and java.io.Serializable classes would do)", e);
        } finally {
            WRITING.set(before);
        }
        return bytes.toByteArray();
    }

    private static final ThreadLocal<List<ObjectRef<?>>> WRITING = new ThreadLocal<>();

    /** A reference met by Java's serialisation: its index in the value. */
    static int indexOfSerialised(ObjectRef<?> ref) throws IOException {
        List<ObjectRef<?>> list = WRITING.get();
        if (list == null)
            throw new java.io.NotSerializableException("references and actor handles travel in arguments, results and "
                + "values that are put, and nowhere else");
        list.add(ref);
        return list.size() - 1;
    }

    /** Plain serialisation of something that may hold no reference. */
    static byte[] javaBytesWithoutRefs(Object value) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        List<ObjectRef<?>> before = WRITING.get();
        WRITING.set(null);
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            out.writeObject(value);
        } finally {
            WRITING.set(before);
        }
        return bytes.toByteArray();
    }
}
