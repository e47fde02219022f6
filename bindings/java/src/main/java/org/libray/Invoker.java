package org.libray;

import java.lang.invoke.MethodHandleInfo;
import java.lang.invoke.MethodType;
import java.lang.reflect.Constructor;
import java.lang.reflect.Executable;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.List;
import org.libray.exception.RayException;

/** A method or constructor of the user's, ready to be called with decoded arguments. Any thread. */
final class Invoker {
    final String name;
    private final Executable executable;
    private final Object[] captured;
    private final boolean takesReceiver;
    private final Type[] types;
    private boolean packs; // the last arguments of a call by name are the elements of its last parameter, an array

    private Invoker(String name, Executable executable, Object[] captured) {
        this.name = name;
        this.executable = executable;
        this.captured = captured;
        takesReceiver = executable instanceof Method && !Modifier.isStatic(executable.getModifiers());
        Type[] declared = executable.getGenericParameterTypes();
        Class<?>[] raw = executable.getParameterTypes();
        types = declared.length == raw.length ? declared : raw;
        executable.setAccessible(true);
    }

    static Invoker of(String className, String method, String descriptor, int kind, Object[] captured) {
        Class<?> c = load(className);
        Executable found = find(c, method, descriptor);
        String name = kind == MethodHandleInfo.REF_newInvokeSpecial ? className : className + "." + method;
        return new Invoker(name, found, captured);
    }

    private static Class<?> load(String className) {
        try {
            return Class.forName(className, true, Decoder.loader());
        } catch (ClassNotFoundException e) {
            throw unknown("the worker's class path has no class " + className);
        }
    }

    private static RayException unknown(String message) {
        return new RayException(Native.UNKNOWN_FUNCTION, message, null);
    }

    /** A method (or "<init>") by its exact descriptor, of the class or what it inherits from. */
    static Executable find(Class<?> c, String method, String descriptor) {
        if (method.equals("<init>")) {
            for (Constructor<?> k : c.getDeclaredConstructors())
                if (MethodType.methodType(void.class, k.getParameterTypes()).toMethodDescriptorString().equals(descriptor)) return k;
            throw unknown(c.getName() + " has no constructor " + descriptor);
        }
        List<Method> all = new ArrayList<>();
        methodsOf(c, method, all);
        for (Method m : all)
            if (MethodType.methodType(m.getReturnType(), m.getParameterTypes()).toMethodDescriptorString().equals(descriptor)) return m;
        throw unknown(c.getName() + " has no method " + method + descriptor);
    }

    private static void methodsOf(Class<?> c, String name, List<Method> into) {
        for (Class<?> each = c; each != null; each = each.getSuperclass())
            for (Method m : each.getDeclaredMethods()) if (m.getName().equals(name)) into.add(m);
        for (Method m : c.getMethods()) if (m.getName().equals(name) && !into.contains(m)) into.add(m);
    }

    /** A static method, or a constructor when the name is empty, for these arguments: how other languages name them. */
    static Invoker byName(String className, String member, Object[] read) {
        int nArgs = read.length;
        Class<?> c = load(className);
        List<Executable> fitting = new ArrayList<>();
        if (member.isEmpty()) {
            for (Constructor<?> k : c.getDeclaredConstructors()) if (takes(k, nArgs)) fitting.add(k);
        } else {
            for (Method m : c.getDeclaredMethods())
                if (m.getName().equals(member) && Modifier.isStatic(m.getModifiers()) && takes(m, nArgs)) fitting.add(m);
        }
        String name = member.isEmpty() ? className : className + "." + member;
        return named(name, fitting, read);
    }

    private static boolean takes(Executable e, int nArgs) {
        return e.getParameterCount() == nArgs || e.isVarArgs() && nArgs >= e.getParameterCount() - 1;
    }

    // One that takes just so many arguments goes before one that takes any number.
    private static Invoker named(String name, List<Executable> fitting, Object[] read) {
        List<Executable> exact = fitting.stream().filter(e -> !e.isVarArgs()).toList();
        Invoker made = new Invoker(name, only(exact.isEmpty() ? fitting : byTypes(exact, read), name, read.length), new Object[0]);
        made.packs = made.executable.isVarArgs();
        return made;
    }

    // Of several with that number of parameters, those that take the arguments: a whole number where a whole number is declared, and
    // so on. Values that are not plain go anywhere.
    private static List<Executable> byTypes(List<Executable> all, Object[] read) {
        if (all.size() < 2) return all;
        List<Executable> fitting = new ArrayList<>();
        for (Executable e : all) {
            boolean fits = true;
            for (int i = 0; i < read.length && fits; i++) fits = accepts(e.getParameterTypes()[i], read[i]);
            if (fits) fitting.add(e);
        }
        return fitting;
    }

    private static boolean accepts(Class<?> declared, Object x) {
        if (x instanceof Incoming || declared == Object.class) return true;
        if (x == null) return !declared.isPrimitive();
        boolean wholeDeclared = List.of(long.class, int.class, short.class, byte.class, Long.class, Integer.class, Short.class, Byte.class).contains(declared);
        if (x instanceof Long || x instanceof Integer) return wholeDeclared;
        boolean floatDeclared = List.of(double.class, float.class, Double.class, Float.class).contains(declared);
        if (x instanceof Double || x instanceof Float) return floatDeclared;
        if (x instanceof Boolean) return declared == boolean.class || declared == Boolean.class;
        return declared.isInstance(x);
    }

    /** A method of an actor as a call names it: "add", "add(I)I", or a lambda's "=pkg.Class.lambda$0(Lpkg.Counter;I)I". */
    static Invoker ofActor(Object actor, String method, Object[] read) {
        int nArgs = read.length;
        if (method.startsWith("=")) {
            int open = method.indexOf('('), dot = method.lastIndexOf('.', open);
            Class<?> c = load(method.substring(1, dot));
            return new Invoker(method.substring(1, open), find(c, method.substring(dot + 1, open), method.substring(open)), new Object[0]);
        }
        String type = actor.getClass().getName();
        int open = method.indexOf('(');
        if (open > 0) return new Invoker(type + "." + method.substring(0, open), find(actor.getClass(), method.substring(0, open), method.substring(open)), new Object[0]);
        List<Method> all = new ArrayList<>();
        methodsOf(actor.getClass(), method, all);
        List<Executable> fitting = new ArrayList<>();
        for (Method m : all)
            if (takes(m, nArgs) && !Modifier.isStatic(m.getModifiers()) && !m.isBridge() && !overridden(m, fitting)) fitting.add(m);
        return named(type + "." + method, fitting, read);
    }

    private static boolean overridden(Method m, List<Executable> by) {
        for (Executable e : by) if (java.util.Arrays.equals(e.getParameterTypes(), m.getParameterTypes())) return true;
        return false;
    }

    private static Executable only(List<Executable> fitting, String name, int nArgs) {
        if (fitting.isEmpty()) throw unknown(name + " with " + nArgs + " arguments: the class has no such " + (name.contains("(") ? "method" : "member"));
        if (fitting.size() > 1) throw unknown(name + " with " + nArgs + " arguments is ambiguous: " + fitting);
        return fitting.get(0);
    }

    /** Whether a call of an actor by that name means this method whatever the arguments are. */
    boolean isOnlyOne(String called, Class<?> actual) {
        if (called.indexOf('(') >= 0) return true;
        List<Method> all = new ArrayList<>();
        methodsOf(actual, called, all);
        return all.stream().noneMatch(Method::isVarArgs) && all.stream().filter(m -> !m.isBridge()).map(m -> java.util.Arrays.toString(m.getParameterTypes())).distinct().count() == 1;
    }

    /** What the i-th argument of a call is to be, `offset` of which the callee has got already. */
    private Type typeOf(int i) {
        int at = i + captured.length - (takesReceiver ? 1 : 0);
        if (at == -1) return executable.getDeclaringClass();
        if (packs && at >= types.length - 1) return executable.getParameterTypes()[types.length - 1].getComponentType();
        return at < types.length ? types[at] : Object.class;
    }

    /**
     * Calls it. `receiver`: the actor, or null for a task. Arguments are values as {@link Incoming#read} gave them; those that were
     * decoded are gone from `read`, the others are the caller's to drop. Throws what the user's code threw.
     */
    Object call(Object receiver, Object[] read) throws Throwable {
        int lead = receiver == null ? 0 : 1;
        Object[] all = new Object[captured.length + lead + read.length];
        System.arraycopy(captured, 0, all, 0, captured.length);
        if (lead == 1) all[captured.length] = receiver;
        int expected = types.length + (takesReceiver ? 1 : 0);
        if (!packs && all.length != expected) throw new IllegalArgumentException(name + " takes " + (expected - captured.length - lead) + " arguments, not " + read.length);
        for (int i = 0; i < read.length; i++) {
            Object value = read[i];
            read[i] = null;
            all[captured.length + lead + i] = argument(value, i, lead);
        }
        if (packs) all = packed(all, expected);
        try {
            if (executable instanceof Constructor) return ((Constructor<?>) executable).newInstance(all);
            if (!takesReceiver) return ((Method) executable).invoke(null, all);
            return ((Method) executable).invoke(all[0], java.util.Arrays.copyOfRange(all, 1, all.length));
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
    }

    private Object[] packed(Object[] all, int expected) {
        Object[] fewer = java.util.Arrays.copyOf(all, expected);
        Class<?> element = executable.getParameterTypes()[types.length - 1].getComponentType();
        Object rest = java.lang.reflect.Array.newInstance(element, all.length - expected + 1);
        for (int i = expected - 1; i < all.length; i++) java.lang.reflect.Array.set(rest, i - expected + 1, all[i]);
        fewer[expected - 1] = rest;
        return fewer;
    }

    private Object argument(Object read, int i, int lead) {
        try {
            Type type = typeOf(i + lead);
            return read == null ? Coerce.to(null, type) : Incoming.resolve(read, type);
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException(name + ": argument " + (i + 1) + ": " + e.getMessage(), e);
        }
    }
}
