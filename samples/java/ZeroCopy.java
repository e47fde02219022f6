// Large arrays lie in shared memory: written there once, read in place by any number of processes.
import java.nio.FloatBuffer;
import org.libray.ObjectRef;
import org.libray.Ray;
import org.libray.Tensor;

public class ZeroCopy {
    // A buffer parameter is a read-only view of the array in shared memory itself.
    static double sum(FloatBuffer part) {
        double sum = 0;
        while (part.hasRemaining()) sum += part.get();
        return sum;
    }

    static Tensor ramp(int rows, int columns) {
        float[] data = new float[rows * columns];
        for (int i = 0; i < data.length; i++) data[i] = i;
        return Tensor.of(data, rows, columns); // one copy, from this array into shared memory
    }

    public static void main(String[] args) {
        Ray.init();

        float[] ones = new float[1 << 20];
        java.util.Arrays.fill(ones, 1);
        ObjectRef<FloatBuffer> put = Ray.put(FloatBuffer.wrap(ones)); // one copy, into shared memory
        double total = 0;
        for (int i = 0; i < 4; i++) total += Ray.task(ZeroCopy::sum, put).remote().get(); // none here

        Tensor made = Ray.task(ZeroCopy::ramp, 1024, 1024).remote().get(); // a view; its memory stays as long as it does
        FloatBuffer view = made.asFloatBuffer();
        System.out.println((long) total + " " + made.size() + " " + (int) view.get(1000));

        Ray.shutdown();
    }
}
