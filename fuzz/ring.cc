// Both ends of a ring over arbitrary words and bytes: nothing outside the data area is touched.
// Input: head, tail (8 bytes each), then the data area.
#include "libray/base/ring.h"

#include <algorithm>
#include <memory>

#include "fuzz/fuzz.h"

using namespace ray;

FUZZ_TARGET(ring) {
  constexpr uint64_t kCapacity = 512;
  uint64_t words[2] = {};
  std::memcpy(words, input.data(), std::min(sizeof words, input.size()));
  input.remove_prefix(std::min(sizeof words, input.size()));
  auto shared = std::make_unique<RingWords>();
  auto data = std::make_unique<uint8_t[]>(kCapacity);  // on the heap: asan sees one byte too far
  std::memcpy(data.get(), input.data(), std::min<size_t>(kCapacity, input.size()));
  shared->head = words[0];
  shared->tail = words[1];

  RingConsumer consumer(shared.get(), data.get(), kCapacity);
  RecordView v;
  uint64_t total = 0, sum = 0;
  RingConsumer::Next next;
  while ((next = consumer.next(&v)) == RingConsumer::Next::kRecord) {
    total += sizeof(RecordHeader) + pad8(v.size);
    FUZZ_CHECK(total <= kCapacity);
    FUZZ_CHECK(v.type != 0);
    FUZZ_CHECK(v.data >= data.get() && v.data + v.size <= data.get() + kCapacity);
    for (uint32_t i = 0; i < v.size; ++i) sum += v.data[i];
    FUZZ_CHECK(v.end == consumer.position());
  }
  FUZZ_CHECK(next != RingConsumer::Next::kEmpty || consumer.position() == shared->tail);
  FUZZ_CHECK(sum <= 255 * kCapacity);

  RingProducer producer(shared.get(), data.get(), kCapacity);
  for (char c : input.substr(0, 64)) {
    auto payload = static_cast<uint32_t>(static_cast<uint8_t>(c)) * 3;
    if (auto* at = static_cast<uint8_t*>(producer.reserve(1, payload))) {
      FUZZ_CHECK(at >= data.get() && at + payload <= data.get() + kCapacity);
      std::memset(at, c, payload);
    } else {
      shared->head = shared->head + static_cast<uint8_t>(c);
    }
    producer.publish();
    FUZZ_CHECK(producer.used() <= kCapacity);
  }
}
