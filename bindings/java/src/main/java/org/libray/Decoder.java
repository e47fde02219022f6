package org.libray;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.ObjectInputStream;
import java.io.ObjectStreamClass;
import java.lang.reflect.Array;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.CodingErrorAction;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.TreeSet;
import org.msgpack.core.ExtensionTypeHeader;
import org.msgpack.core.MessageFormat;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

/** Bytes of ray.h to Java values, guided by the type that is wanted where one is known. See {@link Encoder}. */
final class Decoder {
    private static final MessagePack.UnpackerConfig UNPACKING = new MessagePack.UnpackerConfig()
        .withActionOnMalformedString(CodingErrorAction.REPORT).withActionOnUnmappableString(CodingErrorAction.REPORT);
    private final Incoming value;
    private final ObjectRef<?>[] refs;
    private final long[] buffers;
    private MessageUnpacker in;

    Decoder(Incoming value, ObjectRef<?>[] refs, long[] buffers) {
        this.value = value;
        this.refs = refs;
        this.buffers = buffers;
    }

    /** The whole value. `hint`: what is wanted, or null. */
    Object read(Type hint) {
        Type wanted = hint == null ? Object.class : hint;
        try {
            switch (value.format) {
                case Native.RAW:
                    if (Coerce.raw(wanted) == ByteBuffer.class) return value.view();
                    return Coerce.to(value.bytes(), wanted);
                case Native.MSGPACK:
                    byte[] bytes = value.bytes();
                    if (bytes.length == 0) return Coerce.to(null, wanted);
                    in = UNPACKING.newUnpacker(bytes);
                    return next(wanted);
                case Native.JAVA:
                    return Coerce.to(deserialise(value.bytes()), wanted);
                case Native.ARROW_IPC:
                    return buffer(0);
                default:
                    throw new IllegalArgumentException("a value in format " + value.format + ", which Java does not read: "
                        + "its maker has to give one that other languages read");
            }
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("malformed value: " + e, e);
        }
    }

    private Object next(Type wanted) throws IOException {
        MessageFormat format = in.getNextFormat();
        switch (format.getValueType()) {
            case NIL:
                in.unpackNil();
                return Coerce.to(null, wanted);
            case BOOLEAN:
                return Coerce.to(in.unpackBoolean(), wanted);
            case INTEGER:
                return Coerce.to(integer(format), wanted);
            case FLOAT:
                if (format == MessageFormat.FLOAT32) return Coerce.to(in.unpackFloat(), wanted);
                return Coerce.to(in.unpackDouble(), wanted);
            case STRING:
                return Coerce.to(in.unpackString(), wanted);
            case BINARY:
                return Coerce.to(in.readPayload(in.unpackBinaryHeader()), wanted);
            case ARRAY:
                return array(in.unpackArrayHeader(), wanted);
            case MAP:
                return map(in.unpackMapHeader(), wanted);
            default:
                return extension(wanted);
        }
    }

    private Object integer(MessageFormat format) throws IOException {
        if (format == MessageFormat.UINT64) {
            java.math.BigInteger big = in.unpackBigInteger();
            return big.bitLength() < 64 ? (Object) big.longValue() : big;
        }
        return in.unpackLong();
    }

    private Object array(int n, Type wanted) throws IOException {
        Class<?> c = Coerce.raw(wanted);
        if (c.isArray()) return javaArray(n, c.getComponentType(), wanted);
        if (c.isRecord()) {
            RecordShape shape = RecordShape.of(c);
            if (n != shape.size()) throw new IllegalArgumentException("an array of " + n + " elements is no " + c.getName());
            Object[] parts = new Object[n];
            for (int i = 0; i < n; i++) parts[i] = next(shape.type(i));
            return shape.make(parts);
        }
        Collection<Object> items = collection(n, c);
        Type element = Coerce.argument(wanted, 0);
        for (int i = 0; i < n; i++) items.add(next(element == null ? Object.class : element));
        return items;
    }

    private Object javaArray(int n, Class<?> element, Type wanted) throws IOException {
        Type inner = wanted instanceof java.lang.reflect.GenericArrayType
            ? ((java.lang.reflect.GenericArrayType) wanted).getGenericComponentType() : element;
        Object array = Array.newInstance(element, n);
        for (int i = 0; i < n; i++) Array.set(array, i, next(inner));
        return array;
    }

    private static Collection<Object> collection(int n, Class<?> c) {
        if (c.isAssignableFrom(ArrayList.class)) return new ArrayList<>(Math.min(n, 1 << 16));
        if (c == LinkedHashSet.class || c == java.util.Set.class) return new LinkedHashSet<>();
        if (c == HashSet.class) return new HashSet<>();
        if (c.isAssignableFrom(TreeSet.class)) return new TreeSet<>();
        if (c.isAssignableFrom(ArrayDeque.class)) return new ArrayDeque<>();
        if (c == java.util.LinkedList.class) return new java.util.LinkedList<>();
        throw new IllegalArgumentException("a list is no " + c.getName());
    }

    private Object map(int n, Type wanted) throws IOException {
        Class<?> c = Coerce.raw(wanted);
        if (c.isRecord()) return record(n, c);
        Map<Object, Object> map;
        if (c.isAssignableFrom(LinkedHashMap.class)) map = new LinkedHashMap<>();
        else if (SortedMap.class.isAssignableFrom(c) && c.isAssignableFrom(TreeMap.class)) map = new TreeMap<>();
        else if (c == java.util.concurrent.ConcurrentMap.class || c == java.util.concurrent.ConcurrentHashMap.class)
            map = new java.util.concurrent.ConcurrentHashMap<>();
        else throw new IllegalArgumentException("a map is no " + c.getName());
        Type key = Coerce.argument(wanted, 0), value = Coerce.argument(wanted, 1);
        for (int i = 0; i < n; i++) {
            Object k = next(key == null ? Object.class : key);
            map.put(k, next(value == null ? Object.class : value));
        }
        return map;
    }

    private Object record(int n, Class<?> c) throws IOException {
        RecordShape shape = RecordShape.of(c);
        Object[] parts = new Object[shape.size()];
        for (int i = 0; i < n; i++) {
            String name = in.unpackString();
            int place = shape.place(name);
            if (place < 0) throw new IllegalArgumentException(c.getName() + " has no component " + name);
            parts[place] = next(shape.type(place));
        }
        return shape.make(parts);
    }

    // ---- extension types

    private Object extension(Type wanted) throws IOException {
        ExtensionTypeHeader header = in.unpackExtensionTypeHeader();
        switch (header.getType()) {
            case Ext.TIMESTAMP:
                return Coerce.to(in.unpackTimestamp(header), wanted);
            case Ext.REF:
                return Coerce.to(ref().withType(Coerce.argument(wanted, 0)), wanted);
            case Ext.ACTOR:
                return Coerce.to(ActorHandle.fromRef(ref()), wanted);
            case Ext.TENSOR:
                return Coerce.to(tensor(), wanted);
            case Ext.ARROW:
                return Coerce.to(buffer(ByteBuffer.wrap(in.readPayload(4)).getInt()), wanted);
            case Ext.TUPLE:
                return array(in.unpackArrayHeader(), wanted);
            case Ext.NAMED:
                return named(wanted);
            case Ext.JAVA:
                return Coerce.to(deserialise(in.readPayload(header.getLength())), wanted);
            default:
                throw new IllegalArgumentException("a value holds the MessagePack extension type " + header.getType()
                    + ", which this version of libray does not know");
        }
    }

    private ObjectRef<?> ref() throws IOException {
        int index = ByteBuffer.wrap(in.readPayload(4)).getInt();
        if (index < 0 || index >= refs.length) throw new IllegalArgumentException("malformed value: it has no reference " + index);
        return refs[index];
    }

    private ByteBuffer buffer(int index) {
        if (index < 0 || 2 * index >= buffers.length) throw new IllegalArgumentException("malformed value: it has no buffer " + index);
        return value.view(buffers[2 * index], buffers[2 * index + 1]);
    }

    private Tensor tensor() throws IOException {
        if (in.unpackArrayHeader() != 3) throw new IllegalArgumentException("malformed tensor");
        String dtype = in.unpackString();
        long[] shape = new long[in.unpackArrayHeader()];
        for (int i = 0; i < shape.length; i++) shape[i] = in.unpackLong();
        ByteBuffer data = buffer(in.unpackInt());
        if (!Tensor.holds(dtype, shape, data.remaining()))
            throw new IllegalArgumentException("malformed tensor: " + data.remaining() + " bytes are no " + dtype + " of shape " + Arrays.toString(shape));
        return new Tensor(dtype, shape, data);
    }

    private Object named(Type wanted) throws IOException {
        if (in.unpackArrayHeader() != 2) throw new IllegalArgumentException("malformed value: a name without a value");
        String name = in.unpackString();
        switch (name) {
            case "I": return Coerce.to(in.unpackInt(), wanted);
            case "java.lang.Short": return Coerce.to((short) in.unpackInt(), wanted);
            case "java.lang.Byte": return Coerce.to((byte) in.unpackInt(), wanted);
            case "java.lang.Character": return Coerce.to((char) in.unpackInt(), wanted);
            case "java.util.HashSet": return array(in.unpackArrayHeader(), HashSet.class);
            case "java.util.LinkedHashSet": return array(in.unpackArrayHeader(), LinkedHashSet.class);
            default: return next(classOf(name));
        }
    }

    private static final Map<String, Class<?>> CLASSES = new java.util.concurrent.ConcurrentHashMap<>();

    // A record, an array class or a buffer class. Nothing else is made by name.
    private static Class<?> classOf(String name) {
        return CLASSES.computeIfAbsent(name, n -> {
            try {
                Class<?> c = Class.forName(n, false, loader());
                if (c.isRecord() || c.isArray() || java.nio.Buffer.class.isAssignableFrom(c)) return c;
                throw new IllegalArgumentException("a value names " + n + ", which is no record");
            } catch (ClassNotFoundException e) {
                throw new IllegalArgumentException("a value is a " + n + ", which is not on this class path", e);
            }
        });
    }

    static ClassLoader loader() {
        ClassLoader loader = Thread.currentThread().getContextClassLoader();
        return loader != null ? loader : Decoder.class.getClassLoader();
    }

    // ---- Java's serialisation

    private Object deserialise(byte[] bytes) throws IOException {
        return fromJavaBytes(bytes, refs);
    }

    private static final ThreadLocal<ObjectRef<?>[]> READING = new ThreadLocal<>();

    static ObjectRef<?> serialisedRef(int index) throws IOException {
        ObjectRef<?>[] refs = READING.get();
        if (refs == null || index < 0 || index >= refs.length) throw new java.io.InvalidObjectException("a reference from outside of its value");
        return refs[index];
    }

    static Object fromJavaBytes(byte[] bytes, ObjectRef<?>[] refs) throws IOException {
        ObjectRef<?>[] before = READING.get();
        READING.set(refs);
        try (ObjectInputStream stream = new Input(new ByteArrayInputStream(bytes))) {
            return stream.readObject();
        } catch (ClassNotFoundException e) {
            throw new IllegalArgumentException("a value is of a class that is not on this class path: " + e.getMessage(), e);
        } finally {
            READING.set(before);
        }
    }

    /** Looks classes up where the program has them. */
    private static final class Input extends ObjectInputStream {
        Input(InputStream in) throws IOException {
            super(in);
        }

        @Override
        protected Class<?> resolveClass(ObjectStreamClass description) throws IOException, ClassNotFoundException {
            try {
                return Class.forName(description.getName(), false, loader());
            } catch (ClassNotFoundException e) {
                return super.resolveClass(description);
            }
        }
    }
}
