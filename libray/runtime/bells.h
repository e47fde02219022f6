// Bells: the doorbells of the node's processes, as this process rings them. Each process has two words in the node page
// (wire::Doorbell): `armed`, on which its callers and workers sleep, and `urgent`, on which only its pulse thread does, for
// work that must not wait for callers.
//
// Who: every part of the runtime. Any thread; no locks. Invariant: whoever rings has published first (base/doorbell.h).
#pragma once
#include <atomic>
#include <cstdint>

#include "libray/base/doorbell.h"
#include "libray/wire/protocol.h"

namespace ray {

class Bells {
 public:
  void attach(wire::NodePage* page, uint32_t process) {
    page_ = page;
    process_ = process;
  }
  std::atomic<uint32_t>* of(uint32_t process) { return &page_->bells[process].armed; }
  std::atomic<uint32_t>* own() { return of(process_); }
  std::atomic<uint32_t>* own_urgent() { return &page_->bells[process_].urgent; }
  void ring(uint32_t process) { ray::ring(of(process)); }
  void ring_own() { ray::ring(own()); }
  void ring_pulse() { ray::ring(own_urgent()); }
  void ring_both(uint32_t process) {
    ring(process);
    ray::ring(&page_->bells[process].urgent);
  }
  // Whoever sleeps in this process looks: callers, workers, the pulse thread.
  void poke() { ring_both(process_); }
  uint32_t process() const { return process_; }

 private:
  wire::NodePage* page_ = nullptr;
  uint32_t process_ = 0;
};

}  // namespace ray
