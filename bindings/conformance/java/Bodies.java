// What the Java driver runs elsewhere: bodies as tasks, generators and methods of actors, called by name with any number of arguments.
import java.util.Arrays;
import java.util.Iterator;
import org.libray.ActorCreator;
import org.libray.ActorHandle;
import org.libray.Language;
import org.libray.Ray;
import org.libray.RemoteClass;
import org.libray.RemoteFunction;
import org.libray.StreamCaller;
import org.libray.TaskCaller;

public class Bodies {
    // The function of a language, null = this one, under the name that all drivers give it.
    private static RemoteFunction<Object> function(String language, String name) {
        if (language == null || language.equals("java")) return RemoteFunction.java("Bodies", name, Object.class);
        if (language.equals("python")) return RemoteFunction.python("machine", name, Object.class);
        return language.equals("rust") ? RemoteFunction.rust(name, Object.class) : RemoteFunction.cpp(name, Object.class);
    }

    private static RemoteClass box(String language) {
        if (language == null || language.equals("java")) return RemoteClass.java("Bodies$Box");
        if (language.equals("python")) return RemoteClass.python("machine", "Box");
        return RemoteClass.of(language.equals("rust") ? Language.RUST : Language.NATIVE, "", "Box");
    }

    // A body with several results begins with their number.
    static Object only(String text, Object[] args, Box box) throws Exception {
        int bar = Machine.CROSS ? text.indexOf(';') : text.indexOf('|');
        int results = bar > 0 && text.substring(0, bar).chars().allMatch(Character::isDigit) ? Integer.parseInt(text.substring(0, bar)) : 1;
        Machine machine = new Machine(args, box);
        machine.run(results == 1 ? text : text.substring(bar + 1), "");
        if (results == 1) return machine.given.get(0);
        Object[] all = new Object[results];
        for (int i = 0; i < results; i++) all[i] = machine.given.get(i);
        return Arrays.asList(all);
    }

    static Iterator<Object> items(String text, Object[] args, Box box) {
        return new Machine(args, box).steps(text, "");
    }

    static Object run(String text, Object... args) throws Exception {
        return only(text, args, null);
    }

    static Object twin(String text, Object... args) throws Exception {
        return only(text, args, null);
    }

    static Object run_several(String text, Object... args) throws Exception {
        return only(text, args, null);
    }

    static Iterator<Object> run_stream(String text, Object... args) {
        return items(text, args, null);
    }

    /** An actor whose methods are bodies. */
    public static class Box {
        private long sum;
        private final Object[] kept = new Object[8];

        Box(String text, Object... args) throws Exception {
            new Machine(args, this).run(text, "");
        }

        Object run(String text, Object... args) throws Exception {
            return only(text, args, this);
        }

        Object run_several(String text, Object... args) throws Exception {
            return only(text, args, this);
        }

        Iterator<Object> run_stream(String text, Object... args) {
            return items(text, args, this);
        }

        synchronized long add(long n) {
            return sum += n;
        }

        synchronized long sum() {
            return sum;
        }

        synchronized void keep(int i, Object x) {
            kept[i] = x;
        }

        synchronized Object kept(int i) {
            return kept[i];
        }
    }

    private static Object[] with(String text, Object[] args) {
        Object[] all = new Object[args.length + 1];
        all[0] = text;
        System.arraycopy(args, 0, all, 1, args.length);
        return all;
    }

    static TaskCaller<Object> task(String language, String name, String text, Object[] args) {
        return Ray.task(function(language, name), with(text, args));
    }

    static StreamCaller<Object> stream(String language, String text, Object[] args) {
        return Ray.stream(function(language, "run_stream"), with(text, args));
    }

    static ActorCreator<Object> actor(String language, String text, Object[] args) {
        return Ray.actor(box(language), with(text, args));
    }

    static TaskCaller<Object> call(ActorHandle<?> box, String name, String text, Object[] args) {
        return box.call(name, Object.class, with(text, args));
    }

    static StreamCaller<Object> callStream(ActorHandle<?> box, String text, Object[] args) {
        return box.callStream("run_stream", with(text, args));
    }
}
