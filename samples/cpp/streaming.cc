// Results that come one by one: a generator in a worker, a loop here; blocking, or as a coroutine.
#include <ray.hpp>

#include <iostream>

ray::generator<std::string> words(std::string text) {
  size_t from = 0;
  for (size_t i = 0; i <= text.size(); ++i)
    if (i == text.size() || text[i] == ' ') {
      co_yield text.substr(from, i - from);  // waits when the reader is 64 items behind
      from = i + 1;
    }
}
size_t length(const std::string& word) { return word.size(); }
RAY_REMOTE(words, length);

// Two streams at once on one thread: nothing here blocks.
ray::async<size_t> letters(std::string text) {
  size_t n = 0;
  ray::stream<std::string> stream = ray::task(words)(text);
  while (auto word = co_await stream) n += co_await ray::task(length)(*word);
  co_return n;
}
ray::async<size_t> both() {
  auto a = letters("the quick brown fox"), b = letters("jumps over the lazy dog");
  a.start();
  b.start();
  co_return co_await a + co_await b;
}

int main() {
  ray::session session;

  for (const std::string& word : ray::task(words)("one after the other")) std::cout << word << "\n";
  std::cout << ray::run(both()) << " letters\n";
}
