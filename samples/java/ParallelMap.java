// A map over many values: submit all, then get all. Records travel as MessagePack.
import java.util.ArrayList;
import java.util.List;
import org.libray.ObjectRef;
import org.libray.Ray;

public class ParallelMap {
    record Interval(double from, double to) {}

    // The area under a quarter of the unit circle, between two points.
    static double area(Interval part, int steps) {
        double sum = 0, width = (part.to() - part.from()) / steps;
        for (int i = 0; i < steps; i++) {
            double x = part.from() + (i + 0.5) * width;
            sum += Math.sqrt(1 - x * x) * width;
        }
        return sum;
    }

    public static void main(String[] args) {
        Ray.init();

        List<ObjectRef<Double>> parts = new ArrayList<>();
        for (int i = 0; i < 100; i++)
            parts.add(Ray.task(ParallelMap::area, new Interval(i / 100.0, (i + 1) / 100.0), 10000).setName("quarter").remote());

        int first = Ray.wait(parts, 10).getReady().size(); // whatever is ready first
        double pi = 0;
        for (double part : Ray.get(parts)) pi += 4 * part;
        System.out.println(first + " were ready first; pi is " + Math.round(pi * 1e4) / 1e4);

        Ray.shutdown();
    }
}
