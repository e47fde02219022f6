package org.libray;

import java.lang.reflect.Type;
import java.util.Objects;

/** A function or actor class by its name, in any language; immutable. See {@link RemoteFunction} and {@link RemoteClass}. */
final class Named {
    private final Language language;
    private final String container, member;
    private final Type type;
    private Session session;
    private long handle;

    Named(Language language, String container, String member, Type type) {
        this.language = Objects.requireNonNull(language, "language");
        this.container = Objects.requireNonNull(container, "container");
        this.member = Objects.requireNonNull(member, "member");
        this.type = type;
    }

    Language language() {
        return language;
    }

    Type type() {
        return type;
    }

    synchronized long handle(Session in) {
        if (session == in) return handle;
        handle = define(in);
        session = in;
        return handle;
    }

    private long define(Session in) {
        Frame frame = Frame.mine().begin();
        frame.putText(container).putText(member);
        return frame.handle(Native.functionNamed(in.runtime, language.ordinal(), frame.address()));
    }

    @Override
    public String toString() {
        if (container.isEmpty()) return member;
        if (member.isEmpty()) return container;
        return container + (language == Language.NATIVE || language == Language.RUST ? "::" : ".") + member;
    }
}
