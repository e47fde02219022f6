// Replays every fuzz target (fuzz/*.cc) on its corpus and on a fixed set of mutations of it, so
// that every test run exercises them; tools/fuzz.sh searches for new inputs.
#include "fuzz/fuzz.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace ray::fuzz {

static std::map<std::string, Target>& targets() {
  static std::map<std::string, Target> all;
  return all;
}
Registration::Registration(const char* name, Target target) { targets()[name] = target; }

namespace {

std::vector<std::string> corpus_of(const std::string& name) {
  std::vector<std::filesystem::path> files;
  for (const auto& e : std::filesystem::directory_iterator(LIBRAY_FUZZ_CORPUS "/" + name))
    files.push_back(e.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> out;
  for (const auto& f : files) {
    std::ifstream in(f, std::ios::binary);
    out.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return out;
}

// What breaks parsers: flipped bits, extreme numbers, cuts, repeats, pieces of other inputs.
void mutate(std::mt19937& random, const std::vector<std::string>& corpus, std::string* s) {
  auto place = [&] { return s->empty() ? 0 : random() % s->size(); };
  static const uint64_t extremes[] = {0,
                                      1,
                                      7,
                                      8,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x7fff,
                                      0xffff,
                                      0x7fffffff,
                                      0xffffffff,
                                      0xfffffff8,
                                      0x7fffffffffffffff,
                                      0xffffffffffffffff};
  switch (random() % 7) {
    case 0:
      if (!s->empty()) (*s)[place()] ^= static_cast<char>(1u << random() % 8);
      break;
    case 1:
      if (!s->empty()) (*s)[place()] = static_cast<char>(random());
      break;
    case 2: s->resize(place()); break;
    case 3: {
      size_t from = place(), n = std::min<size_t>(s->size() - from, random() % 32);
      s->insert(place(), s->substr(from, n));
      break;
    }
    case 4: s->erase(place(), random() % 16); break;
    case 5: {
      uint64_t v = extremes[random() % std::size(extremes)];
      if (random() % 2) v = __builtin_bswap64(v);
      size_t width = size_t{1} << random() % 4, at = place();
      for (size_t i = 0; i < width && at + i < s->size(); ++i)
        (*s)[at + i] = static_cast<char>(v >> 8 * i);
      break;
    }
    default: {
      const std::string& other = corpus[random() % corpus.size()];
      size_t from = other.empty() ? 0 : random() % other.size();
      s->insert(place(), other.substr(from, random() % 64));
    }
  }
}

TEST(Fuzz, EveryTargetIsHere) { EXPECT_EQ(targets().size(), size_t{LIBRAY_FUZZ_COUNT}); }

class Replay : public testing::TestWithParam<std::string> {};

TEST_P(Replay, CorpusAndMutations) {
#ifdef LIBRAY_SANITIZED
  constexpr int kRounds = 20000;
#else
  constexpr int kRounds = 100000;
#endif
  Target run = targets().at(GetParam());
  auto corpus = corpus_of(GetParam());
  ASSERT_GE(corpus.size(), 3u);
  run("");
  for (const std::string& input : corpus) {
    run(input);
    for (size_t n = 0; n < std::min<size_t>(input.size(), 512); ++n) run(input.substr(0, n));
  }
  std::mt19937 random(1);
  // Targets that make files or sockets do fewer rounds in their time.
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(8);
  for (int round = 0; round < kRounds && std::chrono::steady_clock::now() < end; ++round) {
    std::string s = corpus[random() % corpus.size()];
    for (size_t n = 1 + random() % 4; n > 0; --n) mutate(random, corpus, &s);
    if (s.size() > 64 << 10) s.resize(64 << 10);
    run(s);
  }
}

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const auto& [name, target] : targets()) out.push_back(name);
  return out;
}

INSTANTIATE_TEST_SUITE_P(Targets, Replay, testing::ValuesIn(names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace ray::fuzz
