package org.libray;

import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.RecordComponent;
import java.lang.reflect.Type;
import java.util.HashMap;
import java.util.Map;

/** The components of a record class: names, types, accessors, and its canonical constructor. Made once per class. */
final class RecordShape {
    private static final ClassValue<RecordShape> SHAPES = new ClassValue<>() {
        @Override
        protected RecordShape computeValue(Class<?> type) {
            return new RecordShape(type);
        }
    };

    private final Class<?> type;
    private final String[] names;
    private final Type[] types;
    private final Method[] accessors;
    private final Constructor<?> constructor;
    private final Map<String, Integer> places = new HashMap<>();

    private RecordShape(Class<?> type) {
        this.type = type;
        RecordComponent[] parts = type.getRecordComponents();
        names = new String[parts.length];
        types = new Type[parts.length];
        accessors = new Method[parts.length];
        Class<?>[] raw = new Class<?>[parts.length];
        for (int i = 0; i < parts.length; i++) {
            names[i] = parts[i].getName();
            types[i] = parts[i].getGenericType();
            raw[i] = parts[i].getType();
            accessors[i] = parts[i].getAccessor();
            accessors[i].setAccessible(true);
            places.put(names[i], i);
        }
        try {
            constructor = type.getDeclaredConstructor(raw);
            constructor.setAccessible(true);
        } catch (NoSuchMethodException e) {
            throw new IllegalStateException(type + " has no canonical constructor", e);
        }
    }

    static RecordShape of(Class<?> type) {
        return SHAPES.get(type);
    }

    int size() {
        return names.length;
    }

    String name(int i) {
        return names[i];
    }

    Type type(int i) {
        return types[i];
    }

    /** Place of a component, or -1. */
    int place(String name) {
        return places.getOrDefault(name, -1);
    }

    Object get(Record record, int i) {
        try {
            return accessors[i].invoke(record);
        } catch (InvocationTargetException e) {
            throw sneak(e.getCause());
        } catch (IllegalAccessException e) {
            throw new IllegalStateException(e);
        }
    }

    Object make(Object[] parts) {
        for (int i = 0; i < parts.length; i++)
            if (parts[i] == null && types[i] instanceof Class && ((Class<?>) types[i]).isPrimitive())
                throw new IllegalArgumentException(type.getName() + ": there is no value for " + names[i]);
        try {
            return constructor.newInstance(parts);
        } catch (InvocationTargetException e) {
            throw sneak(e.getCause());
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    @SuppressWarnings("unchecked")
    private static <T extends Throwable> RuntimeException sneak(Throwable t) throws T {
        throw (T) t;
    }
}
