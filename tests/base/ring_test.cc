// The ring: wrap-around, full, several reserves per publish, hostile words and lengths, two
// threads.
#include "libray/base/ring.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace ray {
namespace {

struct Memory {
  explicit Memory(uint64_t capacity) : capacity(capacity), data(capacity + kGuard, 0xEE) {
    words = std::make_unique<RingWords>();
    words->tail = 0;
    words->head = 0;
  }
  RingProducer producer() { return {words.get(), data.data(), capacity}; }
  RingConsumer consumer() { return {words.get(), data.data(), capacity}; }
  bool guard_is_whole() const {
    for (size_t i = capacity; i < data.size(); ++i)
      if (data[i] != 0xEE) return false;
    return true;
  }
  void write_header(uint64_t at, uint32_t size, uint16_t type) {
    RecordHeader h{size, type, 0};
    std::memcpy(data.data() + (at & (capacity - 1)), &h, sizeof h);
  }
  static constexpr size_t kGuard = 64;
  uint64_t capacity;
  std::unique_ptr<RingWords> words;
  std::vector<uint8_t> data;
};

bool put(RingProducer& p, uint16_t type, const std::string& text, uint16_t flags = 0) {
  void* at = p.reserve(type, static_cast<uint32_t>(text.size()), flags);
  if (!at) return false;
  std::memcpy(at, text.data(), text.size());
  return true;
}
std::string text_of(const RecordView& v) { return {reinterpret_cast<const char*>(v.data), v.size}; }

TEST(Ring, CarriesRecordsInOrder) {
  Memory m(1024);
  RingProducer p = m.producer();
  RingConsumer c = m.consumer();
  RecordView v{};
  EXPECT_EQ(c.next(&v), RingConsumer::Next::kEmpty);
  ASSERT_TRUE(put(p, 1, "one", 7));
  ASSERT_TRUE(put(p, 2, ""));
  EXPECT_TRUE(c.empty());  // reserved is not published
  p.publish();
  ASSERT_EQ(c.next(&v), RingConsumer::Next::kRecord);
  EXPECT_EQ(v.type, 1);
  EXPECT_EQ(v.flags, 7);
  EXPECT_EQ(text_of(v), "one");
  ASSERT_EQ(c.next(&v), RingConsumer::Next::kRecord);
  EXPECT_EQ(v.type, 2);
  EXPECT_EQ(v.size, 0u);
  EXPECT_EQ(c.next(&v), RingConsumer::Next::kEmpty);
  EXPECT_EQ(p.used(), 24u);
  c.release();
  EXPECT_EQ(p.used(), 0u);
}

TEST(Ring, FullUntilReleased) {
  Memory m(64);
  RingProducer p = m.producer();
  RingConsumer c = m.consumer();
  int n = 0;
  while (put(p, 1, "12345678")) ++n;
  EXPECT_EQ(n, 4);
  p.publish();
  RecordView v{};
  ASSERT_EQ(c.next(&v), RingConsumer::Next::kRecord);
  EXPECT_FALSE(put(p, 1, "12345678"));  // read, but not given back
  c.release_to(v.end);
  EXPECT_TRUE(put(p, 1, "12345678"));
  EXPECT_FALSE(put(p, 1, "12345678"));
}

TEST(Ring, LargestPayloadFitsAnEmptyRingAtEveryOffset) {
  Memory m(512);
  RingProducer p = m.producer();
  RingConsumer c = m.consumer();
  for (int i = 0; i < 300; ++i) {
    RecordView v{};
    ASSERT_TRUE(put(p, 1, std::string(i % 30, 'a')));
    p.publish();
    ASSERT_EQ(c.next(&v), RingConsumer::Next::kRecord);
    c.release();
    std::string large(p.max_payload(), static_cast<char>('a' + i % 26));
    ASSERT_TRUE(put(p, 2, large)) << i;
    p.publish();
    ASSERT_EQ(c.next(&v), RingConsumer::Next::kRecord);
    EXPECT_EQ(text_of(v), large);
    c.release();
  }
}

TEST(Ring, RandomSizesAgainstAQueue) {
  Memory m(4096);
  RingProducer p = m.producer();
  RingConsumer c = m.consumer();
  std::mt19937 random(1);
  std::vector<std::string> sent;
  size_t received = 0;
  for (int round = 0; round < 20000; ++round) {
    if (random() % 2) {
      std::string text(random() % 700, static_cast<char>(random()));
      if (put(p, 1, text)) sent.push_back(text);
      p.publish();
    } else {
      RecordView v{};
      auto next = c.next(&v);
      ASSERT_NE(next, RingConsumer::Next::kCorrupt);
      if (next == RingConsumer::Next::kEmpty) {
        EXPECT_EQ(received, sent.size());
        continue;
      }
      ASSERT_EQ(text_of(v), sent[received++]);
      c.release();
    }
  }
  EXPECT_GT(received, 5000u);
  EXPECT_TRUE(m.guard_is_whole());
}

TEST(Ring, ASecondConsumerResumesAtTheReleasedPosition) {
  Memory m(256);
  RingProducer p = m.producer();
  ASSERT_TRUE(put(p, 1, "a"));
  ASSERT_TRUE(put(p, 1, "b"));
  p.publish();
  RecordView v{};
  {
    RingConsumer first = m.consumer();
    ASSERT_EQ(first.next(&v), RingConsumer::Next::kRecord);
    first.release();
    ASSERT_EQ(first.next(&v), RingConsumer::Next::kRecord);  // read "b", died before the release
  }
  RingConsumer second = m.consumer();
  ASSERT_EQ(second.next(&v), RingConsumer::Next::kRecord);
  EXPECT_EQ(text_of(v), "b");
}

TEST(HostileRing, LengthsThatDoNotFitAreCorrupt) {
  for (uint32_t size : {0u, 1u, 7u, 25u, 4096u, 0x7fffffffu, 0xfffffff8u, 0xffffffffu}) {
    for (uint16_t type : {uint16_t{0}, uint16_t{1}}) {
      Memory m(256);
      m.write_header(0, size, type);
      m.words->tail = 24;
      RingConsumer c = m.consumer();
      RecordView v{};
      EXPECT_EQ(c.next(&v), RingConsumer::Next::kCorrupt) << size;
      EXPECT_EQ(c.next(&v), RingConsumer::Next::kCorrupt) << "and stays so";
    }
  }
}

TEST(HostileRing, ARecordMayNotCrossTheEnd) {
  Memory m(256);
  m.words->head = 240;
  m.words->tail = 240 + 64;
  m.write_header(240, 64, 1);
  RingConsumer c = m.consumer();
  RecordView v{};
  EXPECT_EQ(c.next(&v), RingConsumer::Next::kCorrupt);
}

TEST(HostileRing, WordsOutOfOrderAreCorrupt) {
  struct Case {
    uint64_t head, tail;
  };
  for (const Case& k : std::initializer_list<Case>{{0, 257},
                                                   {0, 264},
                                                   {8, 0},
                                                   {0, UINT64_MAX},
                                                   {0, 12},
                                                   {3, 19},
                                                   {255, 271},
                                                   {UINT64_MAX, 7}}) {
    Memory m(256);
    for (uint64_t at = 0; at < 256; at += 8) m.write_header(at, 16, 1);
    m.words->head = k.head;
    m.words->tail = k.tail;
    RingConsumer c = m.consumer();
    RecordView v{};
    EXPECT_EQ(c.next(&v), RingConsumer::Next::kCorrupt) << k.head << " " << k.tail;
  }
}

TEST(HostileRing, AForgedHeadNeverMakesTheProducerWriteOutside) {
  std::mt19937_64 random(2);
  Memory m(256);
  RingProducer p = m.producer();
  for (int round = 0; round < 100000; ++round) {
    uint64_t forged[] = {random(), p.tail() + random() % 1024, p.tail() - random() % 1024, 0,
                         UINT64_MAX};
    m.words->head = forged[random() % 5];
    auto payload = static_cast<uint32_t>(random() % 3 ? random() % 600 : random());
    auto* at = static_cast<uint8_t*>(p.reserve(1, payload));
    EXPECT_LE(p.used(), p.capacity());
    if (!at) continue;
    ASSERT_GE(at, m.data.data());
    ASSERT_LE(at + payload, m.data.data() + m.capacity);
    std::memset(at, 1, payload);
    p.publish();
  }
  EXPECT_TRUE(m.guard_is_whole());
}

TEST(HostileRing, ArbitraryBytesNeverLeadOutside) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 20000; ++round) {
    Memory m(256);
    for (size_t i = 0; i < m.capacity; i += 8) {
      RecordHeader h{static_cast<uint32_t>(random() % 4 ? random() % 64 : random()),
                     static_cast<uint16_t>(random() % 3), 0};
      std::memcpy(m.data.data() + i, &h, sizeof h);
    }
    m.words->head = random() % 4 ? (random() % 64) * 8 : random();
    m.words->tail = m.words->head + (random() % 4 ? random() % 300 : random());
    RingConsumer c = m.consumer();
    RecordView v{};
    uint64_t total = 0;
    while (c.next(&v) == RingConsumer::Next::kRecord) {
      ASSERT_GE(v.data, m.data.data());
      ASSERT_LE(v.data + v.size, m.data.data() + m.capacity);
      total += 8 + pad8(v.size);
      ASSERT_LE(total, m.capacity);
    }
  }
}

TEST(Ring, TwoThreadsWithEverySizeAndBatch) {
  Memory m(2048);
  constexpr uint32_t kRecords = 200000;
  std::thread producer([&] {
    RingProducer p = m.producer();
    std::mt19937 random(4);
    for (uint32_t i = 0; i < kRecords; ++i) {
      uint32_t size = sizeof i + random() % 200;
      uint8_t* at;
      while (!(at = static_cast<uint8_t*>(p.reserve(1, size)))) {
        p.publish();
        std::this_thread::yield();
      }
      std::memcpy(at, &i, sizeof i);
      std::memset(at + sizeof i, static_cast<uint8_t>(i), size - sizeof i);
      if (random() % 4) p.publish();
    }
    p.publish();
  });
  RingConsumer c = m.consumer();
  for (uint32_t expected = 0; expected < kRecords;) {
    RecordView v{};
    auto next = c.next(&v);
    ASSERT_NE(next, RingConsumer::Next::kCorrupt);
    if (next == RingConsumer::Next::kEmpty) {
      std::this_thread::yield();
      continue;
    }
    uint32_t i;
    std::memcpy(&i, v.data, sizeof i);
    ASSERT_EQ(i, expected++);
    for (uint32_t k = sizeof i; k < v.size; ++k) ASSERT_EQ(v.data[k], static_cast<uint8_t>(i));
    if (i % 3 == 0) c.release();
  }
  producer.join();
  EXPECT_TRUE(c.empty());
}

}  // namespace
}  // namespace ray
