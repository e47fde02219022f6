// Single-producer single-consumer ring of byte records in shared memory.
//
// Who: links between a client and a worker, the up rings (client to daemon), the store's publish and
// return rings. Threads: one producer thread and one consumer thread at a time (callers serialise).
//
// Layout: a RingWords header (tail written by the producer alone, head by the consumer alone) and a
// power-of-two data area. A record is a RecordHeader followed by its payload, padded to 8 bytes and
// contiguous: what does not fit before the end is preceded by a padding record.
// Invariants: (1) bytes in [head, tail) are complete records; (2) the release store of `tail` is the
// commit: a producer killed before it leaves nothing, after it everything; (3) a consumer trusts no
// length: a record that does not fit the committed range is reported as corrupt, never followed;
// (4) neither side trusts the other's word: whatever it says, nothing outside the data area is touched.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ray {

struct RingWords {
  alignas(64) std::atomic<uint64_t> tail;  // producer
  alignas(64) std::atomic<uint64_t> head;  // consumer
};
static_assert(sizeof(RingWords) == 128);

struct RecordHeader {
  uint32_t size;  // of header + payload, unpadded
  uint16_t type;  // 0 = padding
  uint16_t flags;
};
static_assert(sizeof(RecordHeader) == 8);

inline constexpr uint64_t pad8(uint64_t n) { return (n + 7) & ~uint64_t{7}; }

class RingProducer {
 public:
  RingProducer() = default;
  RingProducer(RingWords* words, uint8_t* data, uint64_t capacity)
      : words_(words), data_(data), mask_(capacity - 1) {
    // My own word, but the other side can write to the page too: keep records aligned in any case.
    tail_ = words->tail.load(std::memory_order_relaxed) & ~uint64_t{7};
    head_ = words->head.load(std::memory_order_acquire);
  }
  uint64_t capacity() const { return mask_ + 1; }
  // Largest payload that always fits an empty ring.
  uint64_t max_payload() const { return capacity() / 2 - 64; }
  // Bytes not yet freed by the consumer (may be stale, never too small); at most capacity().
  uint64_t used() const {
    uint64_t n = tail_ - words_->head.load(std::memory_order_acquire);
    return n <= capacity() ? n : capacity();
  }

  // From now on room that the consumer gave back is taken by refresh() alone, not by reserve().
  void reuse_by_hand() { by_hand_ = true; }
  // Takes the room that the consumer gave back, but nothing from `needed` on. True: `needed` kept some.
  bool refresh(uint64_t needed) {
    const uint64_t freed = words_->head.load(std::memory_order_acquire);
    head_ = freed < needed ? freed : needed;
    return needed < freed;
  }

  // Space for one record, or nullptr when full. Written bytes become visible with publish().
  // Several reserves may precede one publish. Payloads up to max_payload() fit sooner or later.
  void* reserve(uint16_t type, uint32_t payload, uint16_t flags = 0) {
    uint64_t need = pad8(sizeof(RecordHeader) + uint64_t{payload});
    if (need > capacity() || payload > UINT32_MAX - sizeof(RecordHeader)) return nullptr;
    uint64_t at = tail_ & mask_, to_end = capacity() - at;
    uint64_t skip = need <= to_end ? 0 : to_end;
    if (tail_ + skip + need - head_ > capacity()) {
      if (by_hand_) return nullptr;
      head_ = words_->head.load(std::memory_order_acquire);
      if (tail_ + skip + need - head_ > capacity()) return nullptr;
    }
    if (skip) {
      put_header(at, static_cast<uint32_t>(skip), 0, 0);
      tail_ += skip;
      at = 0;
    }
    put_header(at, static_cast<uint32_t>(sizeof(RecordHeader) + payload), type, flags);
    const uint64_t before = tail_;
    tail_ += need;
    if ((before ^ tail_) >> 6) fetch_ahead();  // else they were asked for already
    return data_ + at + sizeof(RecordHeader);
  }
  // The commit: one release store.
  void publish() { words_->tail.store(tail_, std::memory_order_release); }
  uint64_t tail() const { return tail_; }

 private:
  // The lines of the next record were last read by the consumer: ask for them now, so that writing them
  // does not wait for the other processor.
  void fetch_ahead() const {
#if defined(__x86_64__)
    for (uint64_t line = 64; line <= 192; line += 64)
      __asm__ volatile("prefetchw %0" ::"m"(data_[(tail_ + line) & mask_]));
#endif
  }
  void put_header(uint64_t at, uint32_t size, uint16_t type, uint16_t flags) {
    RecordHeader h{size, type, flags};
    std::memcpy(data_ + at, &h, sizeof h);
  }
  RingWords* words_ = nullptr;
  uint8_t* data_ = nullptr;
  uint64_t mask_ = 0, tail_ = 0, head_ = 0;
  bool by_hand_ = false;
};

struct RecordView {
  uint16_t type;
  uint16_t flags;
  uint32_t size;  // payload bytes
  const uint8_t* data;
  uint64_t end;  // ring position after this record: release_to(end) frees it
};

class RingConsumer {
 public:
  enum class Next { kRecord, kEmpty, kCorrupt };
  RingConsumer() = default;
  RingConsumer(RingWords* words, const uint8_t* data, uint64_t capacity)
      : words_(words), data_(data), mask_(capacity - 1) {
    head_ = words->head.load(std::memory_order_relaxed);
    tail_ = words->tail.load(std::memory_order_acquire);
  }
  bool empty() {
    if (head_ != tail_) return false;
    tail_ = words_->tail.load(std::memory_order_acquire);
    return head_ == tail_;
  }
  // The next record, in place. Its bytes stay valid until release_to(view.end) is called; a hostile
  // producer may change them meanwhile, so daemons copy before they parse.
  Next next(RecordView* out) {
    for (;;) {
      if (empty()) return Next::kEmpty;
      uint64_t avail = tail_ - head_;
      uint64_t at = head_ & mask_;
      // A torn or forged word: records start and end at multiples of 8, within one round.
      if (avail > mask_ + 1 || ((avail | at) & 7) != 0) return Next::kCorrupt;
      RecordHeader h;
      std::memcpy(&h, data_ + at, sizeof h);
      uint64_t padded = pad8(h.size);
      if (h.size < sizeof h || padded > avail || padded > mask_ + 1 - at) return Next::kCorrupt;
      head_ += padded;
      if (h.type == 0) continue;
      *out = {h.type, h.flags, static_cast<uint32_t>(h.size - sizeof h),
              data_ + at + sizeof h, head_};
      return Next::kRecord;
    }
  }
  uint64_t position() const { return head_; }
  // Gives everything before `position` back to the producer.
  void release_to(uint64_t position) { words_->head.store(position, std::memory_order_release); }
  void release() { release_to(head_); }

 private:
  RingWords* words_ = nullptr;
  const uint8_t* data_ = nullptr;
  uint64_t mask_ = 0, head_ = 0, tail_ = 0;
};

}  // namespace ray
