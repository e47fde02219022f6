package org.libray;

import java.lang.reflect.Type;
import org.libray.function.RayFunc;

/** What a call calls: a function, or a method of an actor. Immutable. */
final class Callee {
    final ActorHandle<?> actor;
    final String method;
    final String name;
    final Type type;
    final boolean foreign;
    private final Target target;
    private final Named named;

    private Callee(ActorHandle<?> actor, String method, String name, Type type, boolean foreign, Target target, Named named) {
        this.actor = actor;
        this.method = method;
        this.name = name;
        this.type = type;
        this.foreign = foreign;
        this.target = target;
        this.named = named;
    }

    static Callee function(RayFunc function) {
        Target target = Target.of(function);
        return new Callee(null, null, target.name(), target.returnType, false, target, null);
    }

    static Callee named(Named named) {
        return new Callee(null, null, named.toString(), named.type(), named.language() != Language.JAVA, null, named);
    }

    static Callee method(ActorHandle<?> actor, RayFunc function) {
        Target target = Target.of(function);
        if (target.isCapturing())
            throw new IllegalArgumentException("the lambda in " + target.name() + " captures variables: give them to the method as arguments");
        return new Callee(actor, target.actorMethod, target.name(), target.returnType, actor.isForeign(), target, null);
    }

    static Callee method(ActorHandle<?> actor, String method, Type type) {
        return new Callee(actor, method, method, type, actor.isForeign(), null, null);
    }

    long function(Session session) {
        if (actor != null) return 0;
        return target != null ? target.handle(session) : named.handle(session);
    }

    /** After the call: what {@link #function} gave for a lambda with captured variables was this call's alone. */
    void done(long function) {
        if (actor == null && target != null && target.isCapturing()) Handles.release(Native.FUNCTION, function);
    }

    Target target() {
        return target;
    }
}
