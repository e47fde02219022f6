package org.libray;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.Serializable;
import java.lang.invoke.MethodHandleInfo;
import java.lang.invoke.SerializedLambda;
import java.lang.reflect.Executable;
import java.lang.reflect.Method;
import java.lang.reflect.Type;
import org.libray.exception.RayException;
import org.libray.function.RayFunc;

/**
 * What a method reference or lambda means: the class and method that workers run. Found once for each place in the program that
 * makes one, unless it captures variables. Immutable but for the handle, which belongs to a session.
 */
final class Target {
    static final int MAGIC = 0x4a; // 'J': no definition of another kind begins so
    private static final ClassValue<Slot> SLOTS = new ClassValue<>() {
        @Override
        protected Slot computeValue(Class<?> type) {
            return new Slot();
        }
    };

    private static final class Slot {
        volatile Target target;
    }

    final String className, method, descriptor;
    final int kind;
    private final byte[] captured;
    final Type returnType;
    final String actorMethod;
    private Session session;
    private long handle;

    private Target(SerializedLambda lambda, byte[] captured) {
        className = lambda.getImplClass().replace('/', '.');
        method = lambda.getImplMethodName();
        descriptor = lambda.getImplMethodSignature();
        kind = lambda.getImplMethodKind();
        this.captured = captured;
        Executable executable = Invoker.find(classOf(className), method, descriptor);
        returnType = executable instanceof Method ? ((Method) executable).getGenericReturnType() : executable.getDeclaringClass();
        actorMethod = actorMethod(executable);
    }

    /** The target of a function. IllegalArgumentException if it captures what cannot be serialised. */
    static Target of(RayFunc function) {
        Slot slot = SLOTS.get(function.getClass());
        Target known = slot.target;
        if (known != null) return known;
        SerializedLambda lambda = lambdaOf(function);
        int n = lambda.getCapturedArgCount();
        if (n != 0) return new Target(lambda, captured(lambda, n));
        known = new Target(lambda, null);
        slot.target = known;
        return known;
    }

    private static SerializedLambda lambdaOf(Serializable function) {
        try {
            Method replace = function.getClass().getDeclaredMethod("writeReplace");
            replace.setAccessible(true);
            Object found = replace.invoke(function);
            if (found instanceof SerializedLambda) return (SerializedLambda) found;
        } catch (ReflectiveOperationException | RuntimeException e) {
            throw new IllegalArgumentException("give a method reference or a lambda, not an object of " + function.getClass().getName(), e);
        }
        throw new IllegalArgumentException("give a method reference or a lambda, not an object of " + function.getClass().getName());
    }

    private static byte[] captured(SerializedLambda lambda, int n) {
        Object[] values = new Object[n];
        for (int i = 0; i < n; i++) values[i] = lambda.getCapturedArg(i);
        try {
            return Encoder.javaBytesWithoutRefs(values);
        } catch (IOException e) {
            throw new IllegalArgumentException("the lambda in " + lambda.getCapturingClass().replace('/', '.')
                + " captures what cannot be sent: " + e.getMessage() + " (give it as an argument)", e);
        }
    }

    private static Class<?> classOf(String name) {
        try {
            return Class.forName(name, false, Decoder.loader());
        } catch (ClassNotFoundException e) {
            throw new IllegalArgumentException(name + " is not on the class path", e);
        }
    }

    // The name under which an actor's method is called: plain if that says which one, else with its descriptor. A lambda's
    // body is a method of the class around it, which takes the actor as its first argument.
    private String actorMethod(Executable executable) {
        if (!isVirtual()) return "=" + className + "." + method + descriptor;
        int overloads = 0;
        for (Class<?> c = executable.getDeclaringClass(); c != null; c = c.getSuperclass())
            for (Method m : c.getDeclaredMethods())
                if (m.getName().equals(method) && !m.isBridge() && !m.isSynthetic()) overloads++;
        return overloads == 1 ? method : method + descriptor;
    }

    boolean isVirtual() {
        return kind == MethodHandleInfo.REF_invokeVirtual || kind == MethodHandleInfo.REF_invokeInterface;
    }

    boolean isCapturing() {
        return captured != null;
    }

    /** "pkg.Class.method". */
    String name() {
        return kind == MethodHandleInfo.REF_newInvokeSpecial ? className : className + "." + method;
    }

    /** The function's handle in that session, which keeps it; one with captured variables is the caller's to release. */
    synchronized long handle(Session in) {
        if (session == in) return handle;
        long made = define(in);
        if (captured == null) {
            session = in;
            handle = made;
        }
        return made;
    }

    private long define(Session in) {
        return in.define(Native.LANG_JAVA, name(), definition());
    }

    private byte[] definition() {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (DataOutputStream out = new DataOutputStream(bytes)) {
            out.writeByte(MAGIC);
            out.writeByte(1);
            out.writeUTF(className);
            out.writeUTF(method);
            out.writeUTF(descriptor);
            out.writeByte(kind);
            out.writeInt(captured == null ? -1 : captured.length);
            if (captured != null) out.write(captured);
        } catch (IOException e) {
            throw new IllegalArgumentException(name() + ": its name or signature is too long", e);
        }
        return bytes.toByteArray();
    }

    /** In a worker: what to invoke. */
    static Invoker invoker(byte[] definition) throws IOException {
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(definition))) {
            if (in.readByte() != MAGIC || in.readByte() != 1) throw new RayException(Native.UNKNOWN_FUNCTION, "a definition that this version of libray does not know", null);
            String className = in.readUTF(), method = in.readUTF(), descriptor = in.readUTF();
            int kind = in.readByte(), n = in.readInt();
            Object[] captured = n < 0 ? new Object[0] : (Object[]) Decoder.fromJavaBytes(in.readNBytes(n), new ObjectRef<?>[0]);
            return Invoker.of(className, method, descriptor, kind, captured);
        }
    }
}
