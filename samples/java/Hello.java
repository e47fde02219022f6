// A first program: a method that runs in another process, and its result.
import org.libray.ObjectRef;
import org.libray.Ray;

public class Hello {
    static int square(int x) {
        return x * x;
    }

    public static void main(String[] args) {
        Ray.init(); // starts a node; the workers are JVMs with this class path

        ObjectRef<Integer> a = Ray.task(Hello::square, 3).remote(); // returns at once
        ObjectRef<Integer> b = Ray.task(Hello::square, a).remote(); // a reference as an argument stands for its value
        System.out.println(a.get() + " " + b.get());

        Ray.shutdown();
    }
}
