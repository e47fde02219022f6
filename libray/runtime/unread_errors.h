// UnreadErrors: errors whose last reference went without anybody having seen them. One is noted on whatever thread frees its
// object, and told on the pulse thread: a line of the log named "unread-error", which a binding may take as the sign to ask
// for the errors themselves ("unread"). None of it costs a result that is no error anything. In an interactive session
// results may be kept for ever: there "neglected" also tells those that nobody saw for five seconds.
//
// Who: Objects when an error is freed; waits, which see errors; queries. Threads: any; what changes an object wants Runtime's
// mutex held. Lock: its own over the list, a leaf. Invariants: an error is in the list at most once, since what is put there
// counts as seen; the list has at most kMost.
#pragma once
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>

#include "libray/runtime/callbacks.h"
#include "libray/runtime/object.h"

namespace ray {

class UnreadErrors {
 public:
  static constexpr size_t kMost = 1000;  // when nobody asks for them
  explicit UnreadErrors(Callbacks& callbacks) : callbacks_(callbacks) {}
  ~UnreadErrors();

  // A get of many tells of one failure: the others are not missed either. Runtime's mutex held.
  static void excuse(Object* const* objects, size_t n);
  // Whoever is told that an object is ready may find out that it failed.
  static void saw(Object* const* objects, const uint8_t* ready, size_t n);
  // The object goes, and its reference to the error. Runtime's mutex held.
  void freed(Object* o);
  void stop() { stopped_ = true; }  // what goes from now on is not missed
  // Looks at all objects of the runtime; `n_errors`: how many have failed. Runtime's mutex held.
  void find_neglected(const Runtime* runtime, uint64_t n_errors);
  void take(std::string* answer);  // one MessagePack value
  std::string check();             // what is wrong, empty: nothing

 private:
  void note(ErrorBox* e);
  Callbacks& callbacks_;
  std::atomic<bool> stopped_{false};
  uint64_t looked_ = 0;  // n_errors when no failed object was left that nobody had seen; Runtime's mutex
  std::mutex mutex_;
  std::deque<ErrorBox*> list_;
};

}  // namespace ray
