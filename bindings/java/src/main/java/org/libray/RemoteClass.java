package org.libray;

/** An actor class of any language by its name, for {@link Ray#actor(RemoteClass, Object...)}. Immutable; any thread. */
public final class RemoteClass {
    final Named named;

    private RemoteClass(Named named) {
        this.named = named;
    }

    /** A class of a language; container and member as for {@link RemoteFunction#of}; of Java the member is empty. */
    public static RemoteClass of(Language language, String container, String member) {
        return new RemoteClass(new Named(language, container, member, Object.class));
    }

    /** A Python class that workers can import. */
    public static RemoteClass python(String module, String name) {
        return of(Language.PYTHON, module, name);
    }

    /** A Java class. */
    public static RemoteClass java(String className) {
        return of(Language.JAVA, className, "");
    }

    @Override
    public String toString() {
        return named.toString();
    }
}
