// The queues that a task stands in: lists through the tasks themselves, so that moving one costs no memory and taking it
// out costs the same wherever it stands.
//
// Who calls it: the machines of this folder, and who drives them (libray/runtime under its mutex, libray/sim). Pure; no
// lock of its own. Invariant: a task stands in one list at most, by its members `prev` and `next`.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace ray::task {

// T has T *prev, *next.
template <class T>
struct List {
  T *head = nullptr, *tail = nullptr;
  size_t size = 0;
  bool empty() const { return !head; }
  void push_back(T* t) {
    t->prev = tail;
    t->next = nullptr;
    (tail ? tail->next : head) = t;
    tail = t;
    ++size;
  }
  void push_front(T* t) {
    t->next = head;
    t->prev = nullptr;
    (head ? head->prev : tail) = t;
    head = t;
    ++size;
  }
  void insert_before(T* at, T* t) {  // null: at the end
    if (!at) return push_back(t);
    if (at == head) return push_front(t);
    t->prev = at->prev;
    t->next = at;
    at->prev->next = t;
    at->prev = t;
    ++size;
  }
  void remove(T* t) {
    (t->prev ? t->prev->next : head) = t->next;
    (t->next ? t->next->prev : tail) = t->prev;
    t->prev = t->next = nullptr;
    --size;
  }
  T* pop_front() {
    T* t = head;
    if (t) remove(t);
    return t;
  }
  bool check() const {
    size_t n = 0;
    const T* before = nullptr;
    for (const T* t = head; t; before = t, t = t->next, ++n)
      if (t->prev != before || n > size) return false;
    return before == tail && n == size;
  }
};

// What waits for a worker of one shape, in the order in which it is to go. T has `submitted` besides.
template <class T>
class Backlog : public List<T> {
  using Base = List<T>;

 public:
  void remove(T* t) {
    if (t == returned_) returned_ = nullptr;
    Base::remove(t);
  }
  // Back where it was, ahead of what was submitted after it and waits. They come in the order of their ring, so the place
  // is mostly behind the one before.
  void give_back(T* t) {
    const bool follows = returned_ && returned_->submitted < t->submitted;
    T* later = follows ? returned_->next : this->head;
    while (later && later->submitted < t->submitted) later = later->next;
    this->insert_before(later, t);
    returned_ = t;
  }
  bool check() const {
    bool there = returned_ == nullptr;
    for (const T* t = this->head; t; t = t->next) there |= t == returned_;
    return there && Base::check();
  }

 private:
  using Base::pop_front;       // which would not know of
  T* returned_ = nullptr;      // the last that came back; it stands here
};

}  // namespace ray::task
