import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Writes what differs by the number of arguments alone: the functional interfaces RayFunc0..6 and RayFuncVoid0..6, and the methods
 * task, stream and actor that take them, in all combinations of values and references. Run by Maven: java Arities.java FOLDER.
 */
public class Arities {
    static final int MAX = 6;

    public static void main(String[] args) throws IOException {
        Path root = Path.of(args[0], "org", "libray");
        Files.createDirectories(root.resolve("function"));
        for (int n = 0; n <= MAX; n++) {
            Files.writeString(root.resolve("function/RayFunc" + n + ".java"), function(n, false));
            Files.writeString(root.resolve("function/RayFuncVoid" + n + ".java"), function(n, true));
        }
        Files.writeString(root.resolve("Calls.java"), calls());
        Files.writeString(root.resolve("ActorCalls.java"), actorCalls());
    }

    /** "T0, T1" from `from` to `to`. */
    static String types(int from, int to) {
        List<String> names = new ArrayList<>();
        for (int i = from; i < to; i++) names.add("T" + i);
        return String.join(", ", names);
    }

    static String generics(String... parts) {
        List<String> full = new ArrayList<>();
        for (String part : parts) if (!part.isEmpty()) full.add(part);
        return full.isEmpty() ? "" : "<" + String.join(", ", full) + ">";
    }

    static String function(int n, boolean isVoid) {
        String name = "RayFunc" + (isVoid ? "Void" : "") + n;
        StringBuilder s = new StringBuilder("package org.libray.function;\n\n/** A method of " + n + " arguments that "
            + (isVoid ? "returns nothing" : "returns a value") + ", by reference: see {@link RayFunc}. */\n@FunctionalInterface\n");
        s.append("public interface " + name + generics(types(0, n), isVoid ? "" : "R") + " extends RayFunc {\n");
        List<String> parameters = new ArrayList<>();
        for (int i = 0; i < n; i++) parameters.add("T" + i + " t" + i);
        s.append("    /** Calls the method. */\n    " + (isVoid ? "void" : "R") + " apply(" + String.join(", ", parameters) + ") throws Exception;\n}\n");
        return s.toString();
    }

    /** One method: `bits` says which of its arguments are references; `first`: how many the callee has already (the actor). */
    static String method(String doc, String modifiers, String result, String name, String functionType, String typeParameters, int first, int n, int bits, String body) {
        StringBuilder s = new StringBuilder("    /** " + doc + " */\n    " + modifiers + typeParameters + (typeParameters.isEmpty() ? "" : " ") + result + " " + name + "(" + functionType + " f");
        List<String> names = new ArrayList<>();
        for (int i = first; i < n; i++) {
            boolean ref = (bits >> (i - first) & 1) == 1;
            s.append(", " + (ref ? "ObjectRef<T" + i + ">" : "T" + i) + " t" + i);
            names.add("t" + i);
        }
        return s.append(") {\n        return " + body.replace("ARGS", "new Object[] {" + String.join(", ", names) + "}") + ";\n    }\n\n").toString();
    }

    static String calls() {
        StringBuilder s = new StringBuilder("package org.libray;\n\nimport java.util.Iterator;\nimport org.libray.function.*;\n\n"
            + "/** The calls of {@link Ray} by method reference. Arguments are values, or references whose values the callee sees. */\nabstract class Calls {\n    Calls() {}\n\n");
        for (int n = 0; n <= MAX; n++)
            for (int bits = 0; bits < 1 << n; bits++) {
                String types = types(0, n);
                s.append(method("Describes a call of a function; {@link TaskCaller#remote()} makes it. IllegalArgumentException if a lambda captures what cannot be sent.", "public static ", "TaskCaller<R>", "task",
                    "RayFunc" + n + generics(types, "R"), generics(types, "R"), 0, n, bits, "new TaskCaller<>(Callee.function(f), ARGS)"));
                s.append(method("Describes a call of a function without a result; its reference tells when it is done and whether it failed.", "public static ", "TaskCaller<Void>", "task",
                    "RayFuncVoid" + n + generics(types), generics(types), 0, n, bits, "new TaskCaller<>(Callee.function(f), ARGS)"));
                s.append(method("Describes a call of a generator, a function that returns an Iterator; {@link StreamCaller#remote()} makes it.", "public static ", "StreamCaller<R>", "stream",
                    "RayFunc" + n + generics(types, "? extends Iterator<R>"), generics(types, "R"), 0, n, bits, "new StreamCaller<>(Callee.function(f), ARGS)"));
                s.append(method("Describes an actor by its constructor or a function that makes one; {@link ActorCreator#remote()} makes it.", "public static ", "ActorCreator<A>", "actor",
                    "RayFunc" + n + generics(types, "A"), generics(types, "A"), 0, n, bits, "new ActorCreator<>(Callee.function(f), Language.JAVA, ARGS)"));
            }
        return s.append("}\n").toString();
    }

    static String actorCalls() {
        StringBuilder s = new StringBuilder("package org.libray;\n\nimport java.util.Iterator;\nimport org.libray.function.*;\n\n"
            + "/** The calls of {@link ActorHandle} by method reference. Arguments are values, or references whose values the method sees. */\nabstract class ActorCalls<A> {\n    ActorCalls() {}\n\n"
            + "    abstract ActorHandle<A> actor();\n\n");
        for (int n = 1; n <= MAX; n++)
            for (int bits = 0; bits < 1 << (n - 1); bits++) {
                String types = types(1, n);
                s.append(method("Describes a call of a method; {@link TaskCaller#remote()} makes it.", "public ", "TaskCaller<R>", "task",
                    "RayFunc" + n + generics("? super A", types, "R"), generics(types, "R"), 1, n, bits, "new TaskCaller<>(Callee.method(actor(), f), ARGS)"));
                s.append(method("Describes a call of a method without a result; its reference tells when it is done and whether it failed.", "public ", "TaskCaller<Void>", "task",
                    "RayFuncVoid" + n + generics("? super A", types), generics(types), 1, n, bits, "new TaskCaller<>(Callee.method(actor(), f), ARGS)"));
                s.append(method("Describes a call of a generator, a method that returns an Iterator; {@link StreamCaller#remote()} makes it.", "public ", "StreamCaller<R>", "stream",
                    "RayFunc" + n + generics("? super A", types, "? extends Iterator<R>"), generics(types, "R"), 1, n, bits, "new StreamCaller<>(Callee.method(actor(), f), ARGS)"));
            }
        return s.append("}\n").toString();
    }
}
