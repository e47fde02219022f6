// One reader and one writer for each record of the node-local protocol that is more than its fixed head: what
// follows the head, in which order, and which sizes are believed. protocol.h has the heads.
//
// Who calls it: a process and its daemon, a client and a worker, tools, tests and the fuzzer. Any thread; no state.
// Invariants: a reader looks at nothing outside the bytes it was given and says false when they are not the record;
// views point into those bytes and live as long; what a writer wrote a reader reads as the same. A record that is
// longer than what is read of it is accepted: later versions append.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "libray/wire/protocol.h"

namespace ray::wire {

inline std::string_view bytes_of(const void* data, size_t size) { return {static_cast<const char*>(data), size}; }

// Takes a record apart from its front.
class Parts {
 public:
  explicit Parts(std::string_view bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}
  Parts(const void* data, size_t size) : Parts(bytes_of(data, size)) {}

  size_t left() const { return static_cast<size_t>(end_ - at_); }
  std::string_view rest() const { return {at_, left()}; }
  const uint8_t* at() const { return reinterpret_cast<const uint8_t*>(at_); }
  template <class Head>
  bool head(Head* out) {
    if (left() < sizeof *out) return false;
    std::memcpy(out, at_, sizeof *out);
    at_ += sizeof *out;
    return true;
  }
  bool bytes(uint64_t size, std::string_view* out) {
    if (size > left()) return false;
    *out = {at_, static_cast<size_t>(size)};
    at_ += size;
    return true;
  }
  // And what pads them to 8, of which the last may be missing.
  bool padded(uint64_t size, std::string_view* out) {
    if (!bytes(size, out)) return false;
    at_ += std::min<uint64_t>(pad8(size) - size, left());
    return true;
  }

 private:
  const char *at_, *end_;
};

// A head, and perhaps whatever follows it.
template <class Head>
bool read_head(std::string_view record, Head* out, std::string_view* tail = nullptr) {
  Parts parts(record);
  if (!parts.head(out)) return false;
  if (tail) *tail = parts.rest();
  return true;
}

// A list of things of one size in a record, aligned to nothing.
template <class T>
class List {
 public:
  List() = default;
  bool read(Parts* parts, uint64_t n) {
    if (n > parts->left() / sizeof(T)) return false;
    n_ = n;
    return parts->bytes(n * sizeof(T), &bytes_);
  }
  size_t size() const { return n_; }
  T operator[](size_t i) const {
    T out;
    std::memcpy(&out, bytes_.data() + i * sizeof(T), sizeof(T));
    return out;
  }
  void copy_to(std::vector<T>* out) const {
    out->resize(n_);
    if (n_) std::memcpy(out->data(), bytes_.data(), bytes_.size());
  }
  std::vector<T> vector() const {
    std::vector<T> out;
    copy_to(&out);
    return out;
  }

 private:
  std::string_view bytes_;
  size_t n_ = 0;
};
template <class T>
std::string_view list_bytes(const std::vector<T>& items) {
  return bytes_of(items.data(), items.size() * sizeof(T));
}

// ---- up: a process to its daemon

// kUpObjShare, kUpObjReady: UpObj; kUpObjResult: UpObjResult.
template <class Head>
struct WithObjects {
  Head head{};
  List<ObjectId> contained;
};
using ObjectRecord = WithObjects<UpObj>;
using ResultRecord = WithObjects<UpObjResult>;
template <class Head>
bool read(std::string_view record, WithObjects<Head>* out) {
  Parts parts(record);
  return parts.head(&out->head) && out->contained.read(&parts, out->head.n_contained);
}

struct ActorCreateRecord {  // kUpActorCreate; sizes in the head are the writer's to fill in
  UpActorCreate head{};
  std::string_view name, ns, klass, metadata, resources, record;
  List<ObjectId> dependencies;
};
bool read(std::string_view record, ActorCreateRecord* out);
// The head's sizes, and what follows it.
std::string write(ActorCreateRecord* r, const std::vector<ObjectId>& dependencies);

struct ActorSaysRecord {  // kUpActorConnect, -Kill, -Ready, -Exit
  UpActor head{};
  std::string_view text;  // or the facts
  bool facts(ActorFacts* out) const { return read_head(text, out); }
};
bool read(std::string_view record, ActorSaysRecord* out);

// ---- down: the daemon to a process

struct GrantRecord {  // kDnLeaseGrant
  DnLease head{};
  List<uint32_t> units;
};
bool read(std::string_view record, GrantRecord* out);

struct ActorInitRecord {  // kDnActorInit
  DnActorInit head{};
  std::string_view record;
  List<uint32_t> units;
};
bool read(std::string_view record, ActorInitRecord* out);
std::string write(ActorInitRecord* r, const std::vector<uint32_t>& units);  // as above

struct ActorStateRecord {  // kDnActorState, kDnActorWanted
  DnActorState head{};
  std::string_view text;  // or the end of a packed error
};
bool read(std::string_view record, ActorStateRecord* out);

// ---- links: values, as arguments and as results

struct Value {
  ArgHeader head{};
  const uint8_t* bytes = nullptr;  // head.size of them
  StoreRef ref() const {           // of one in the store
    StoreRef out;
    std::memcpy(static_cast<void*>(&out), bytes, sizeof out);
    return out;
  }
};
inline bool read(Parts* parts, Value* out) {
  std::string_view bytes;
  if (!parts->head(&out->head) || !parts->padded(out->head.size, &bytes)) return false;
  out->bytes = reinterpret_cast<const uint8_t*>(bytes.data());
  return out->head.where != kStore || bytes.size() >= sizeof(StoreRef);
}
inline constexpr uint64_t value_size(uint64_t bytes) { return sizeof(ArgHeader) + pad8(bytes); }
inline uint8_t* put_padded(uint8_t* at, const void* data, uint64_t size) {
  if (size) std::memcpy(at, data, size);
  return at + pad8(size);
}
template <class Head>
uint8_t* put_head(uint8_t* at, const Head& head) {
  std::memcpy(at, &head, sizeof head);
  return at + sizeof head;
}
inline uint8_t* put_value(uint8_t* at, const ArgHeader& head, const void* bytes) {
  return put_padded(put_head(at, head), bytes, head.size);
}

// ---- links: tasks and what becomes of them

struct TaskRecord {  // kLinkTask, and the record that an actor is created with
  TaskHeader head{};
  std::string_view name, method;
  std::string_view args;  // n_args values, or one StoreRef
};
bool read(std::string_view record, TaskRecord* out);
inline constexpr uint64_t task_head_size(size_t name, size_t method) {
  return sizeof(TaskHeader) + pad8(name) + pad8(method);
}

// kLinkDone, kLinkItem, kLinkReturned: heads, then values by read(Parts*, Value*). kLinkPart:
struct PartRecord {
  uint64_t tag = 0;
  std::string_view bytes;
};
inline bool read(std::string_view record, PartRecord* out) {
  return read_head(record, &out->tag, &out->bytes);
}

}  // namespace ray::wire
