package org.libray;

import java.lang.reflect.GenericArrayType;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.WildcardType;
import java.math.BigDecimal;
import java.math.BigInteger;

/** Fits a decoded value to the type that a parameter or a result has; refuses what would lose something. */
final class Coerce {
    private Coerce() {}

    /** The class behind a type; Object for type variables. */
    static Class<?> raw(Type type) {
        if (type instanceof Class) return (Class<?>) type;
        if (type instanceof ParameterizedType) return (Class<?>) ((ParameterizedType) type).getRawType();
        if (type instanceof WildcardType) return raw(((WildcardType) type).getUpperBounds()[0]);
        if (type instanceof GenericArrayType)
            return java.lang.reflect.Array.newInstance(raw(((GenericArrayType) type).getGenericComponentType()), 0).getClass();
        return Object.class;
    }

    /** The i-th argument of a parameterised type, or null. */
    static Type argument(Type type, int i) {
        if (type instanceof WildcardType) return argument(((WildcardType) type).getUpperBounds()[0], i);
        if (!(type instanceof ParameterizedType)) return null;
        Type[] arguments = ((ParameterizedType) type).getActualTypeArguments();
        return i < arguments.length ? arguments[i] : null;
    }

    /** The value as that type. IllegalArgumentException if it is none and cannot be made one without loss. */
    static Object to(Object x, Type type) {
        Class<?> c = raw(type);
        if (x == null) {
            if (c.isPrimitive() && c != void.class) throw new IllegalArgumentException("nil is no " + c.getName());
            return null;
        }
        if (c == Object.class || c == void.class || c == Void.class || c.isInstance(x)) return x;
        if (x instanceof Number) {
            Object number = number((Number) x, c);
            if (number != null) return number;
        }
        if (c == boolean.class && x instanceof Boolean) return x;
        if (c == char.class && x instanceof Character) return x;
        if ((c == char.class || c == Character.class) && x instanceof String && ((String) x).length() == 1) return ((String) x).charAt(0);
        if (x instanceof Tensor) {
            Object made = ((Tensor) x).as(c);
            if (made != null) return made;
        }
        if (c.isEnum() && x instanceof String) return constant(c, (String) x);
        if (c == java.nio.ByteBuffer.class && x instanceof byte[]) return java.nio.ByteBuffer.wrap((byte[]) x).asReadOnlyBuffer();
        throw new IllegalArgumentException("a value of " + x.getClass().getName() + " is no " + c.getName());
    }

    private static Object constant(Class<?> c, String name) {
        for (Object constant : c.getEnumConstants()) if (((Enum<?>) constant).name().equals(name)) return constant;
        throw new IllegalArgumentException(c.getName() + " has no constant " + name);
    }

    private static Object number(Number x, Class<?> c) {
        if (c == double.class || c == Double.class) return exact(x, x.doubleValue(), c);
        if (c == float.class || c == Float.class) return (float) exact(x, x.floatValue(), c);
        if (x instanceof Double || x instanceof Float) return null;
        if (c == BigInteger.class) return x instanceof BigInteger ? x : BigInteger.valueOf(x.longValue());
        if (x instanceof BigInteger) {
            if (c != long.class && c != int.class && c != Long.class && c != Integer.class && c != Number.class) return null;
            throw new IllegalArgumentException(x + " is no " + c.getName() + ": out of range");
        }
        long v = x.longValue();
        if (c == long.class || c == Long.class) return v;
        if (c == int.class || c == Integer.class) return (int) inRange(v, Integer.MIN_VALUE, Integer.MAX_VALUE, c);
        if (c == short.class || c == Short.class) return (short) inRange(v, Short.MIN_VALUE, Short.MAX_VALUE, c);
        if (c == byte.class || c == Byte.class) return (byte) inRange(v, Byte.MIN_VALUE, Byte.MAX_VALUE, c);
        return null;
    }

    // A float of fewer digits is as near as it gets; a whole number is itself, and nothing that has an end becomes infinite.
    private static double exact(Number x, double made, Class<?> c) {
        boolean isFloat = x instanceof Double || x instanceof Float;
        boolean fits = isFloat ? !Double.isInfinite(made) || Double.isInfinite(x.doubleValue())
            : !Double.isInfinite(made) && (Math.abs(made) < 1 << 24 || new BigDecimal(made).compareTo(new BigDecimal(x.toString())) == 0);
        if (!fits) throw new IllegalArgumentException(x + " is no " + c.getName() + (isFloat ? ": out of range" : ": it has no such number"));
        return made;
    }

    private static long inRange(long v, long low, long high, Class<?> c) {
        if (v < low || v > high) throw new IllegalArgumentException(v + " is no " + c.getName() + ": out of range");
        return v;
    }
}
