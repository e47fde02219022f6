// Results that come one by one: a generator in a worker, a loop here; blocking, or with futures.
import java.util.Arrays;
import java.util.Iterator;
import java.util.concurrent.CompletableFuture;
import org.libray.ObjectStream;
import org.libray.Ray;

public class Streaming {
    // What the iterator gives is sent at once; it waits when the reader is 64 items behind.
    static Iterator<String> words(String text) {
        return Arrays.stream(text.split(" ")).iterator();
    }

    static int length(String word) {
        return word.length();
    }

    // Two streams at once: no thread waits.
    static CompletableFuture<Integer> letters(ObjectStream<String> words) {
        return words.nextAsync().thenCompose(word -> word.isEmpty()
            ? CompletableFuture.completedFuture(0)
            : Ray.task(Streaming::length, word.get()).remote().toCompletableFuture()
                .thenCombine(letters(words), Integer::sum));
    }

    public static void main(String[] args) {
        Ray.init();

        for (String word : Ray.stream(Streaming::words, "one after the other").remote()) System.out.println(word);

        CompletableFuture<Integer> a = letters(Ray.stream(Streaming::words, "the quick brown fox").remote());
        CompletableFuture<Integer> b = letters(Ray.stream(Streaming::words, "jumps over the lazy dog").remote());
        System.out.println(a.thenCombine(b, Integer::sum).join() + " letters");

        Ray.shutdown();
    }
}
