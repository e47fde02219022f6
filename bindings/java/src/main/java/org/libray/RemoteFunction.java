package org.libray;

/**
 * A function of any language by its name, for {@link Ray#task(RemoteFunction, Object...)}. Immutable; any thread; may be kept in a constant.
 *
 * @param <R> what its result is read as
 */
public final class RemoteFunction<R> {
    final Named named;

    private RemoteFunction(Named named) {
        this.named = named;
    }

    /** A function of a language: container and member are module and qualified name (Python), class and static method (Java), empty and the registered name (C, C++, Rust). Whether it exists shows when it is called. */
    public static <R> RemoteFunction<R> of(Language language, String container, String member, Class<R> result) {
        return new RemoteFunction<>(new Named(language, container, member, result));
    }

    /** A Python function that workers can import. */
    public static <R> RemoteFunction<R> python(String module, String name, Class<R> result) {
        return of(Language.PYTHON, module, name, result);
    }

    /** A function that a native program registers. */
    public static <R> RemoteFunction<R> cpp(String name, Class<R> result) {
        return of(Language.NATIVE, "", name, result);
    }

    /** A function that a Rust program registers. */
    public static <R> RemoteFunction<R> rust(String name, Class<R> result) {
        return of(Language.RUST, "", name, result);
    }

    /** A static method of a Java class, by name. */
    public static <R> RemoteFunction<R> java(String className, String method, Class<R> result) {
        return of(Language.JAVA, className, method, result);
    }

    @Override
    public String toString() {
        return named.toString();
    }
}
