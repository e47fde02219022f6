// What the relays of two nodes say to each other over a session of libray/net. Plain values and their MessagePack form; a
// message is one record after the other. Pure.
//
// Who: stand_in.cc and gateway.cc make and take records; fuzz/relay.cc. Nobody vouches for the bytes: decode() checks every
// length and count, and what it gives points into the message.
//
// A *lane* is one stand-in with its place at the gateway: numbered by the node that has the tasks, which is the opener.
// Records of a lane, and of a job, keep their order. What is *counted* (a record's bytes in the message, where is_counted()
// says so) may be under way in a lane up to kWindowBytes in each direction; the receiver says with kTaskRoom or kResultRoom
// what it is done with. So no message is long, and the memory of both sides is bounded by the number of lanes.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"
#include "libray/wire/cursor.h"

namespace ray::relay {

inline constexpr size_t kPart = 256 << 10;           // bytes of a value, a definition or a job in one record
inline constexpr size_t kInPlace = 32 << 10;         // longer values come in parts, before the record that has them
inline constexpr size_t kBatch = 512 << 10;          // a message that has so much is sent
inline constexpr uint32_t kWindowTasks = 256;        // of a lane, sent and not answered
inline constexpr uint64_t kWindowBytes = 1 << 20;    // counted bytes of a lane, in one direction
inline constexpr uint32_t kMaxValues = 1 << 16;      // arguments or results of a task
inline constexpr uint32_t kMaxBuffers = 1 << 20;     // out-of-band buffers of a value
inline constexpr uint64_t kMaxDefinition = 104u << 20;  // as in a request to the daemon
inline constexpr uint64_t kMaxJob = 16u << 20;          // as in a hello

enum class Kind : uint8_t {
  // From the opener.
  kJob = 1,    // job, more, bytes: a part of the hello that its driver would say to that node's daemon
  kLane,       // lane, job, language, bytes: the resources of its tasks. After all of kJob
  kUnlane,     // lane, flags: nothing more of it, and no answer is wanted; 1: what runs is killed
  kFunction,   // job, key, language, function_kind, name, more, bytes: a part of a definition; before the first kTask
  kForget,     // job, key: the receiver need not keep it
  kArgument,   // lane, number, index, value: sizes of one whose bytes follow in kArgumentPart, before its kTask
  kArgumentPart,  // lane, bytes: of the lane's last kArgument: data, then each buffer
  kTask,       // lane, task
  kCancel,     // lane, number, flags: RAY_CANCEL_*
  kRecall,     // lane: give back what has not begun
  kResultRoom,  // lane, bytes_done
  kJobOver,    // job
  // From the other side.
  kLaneOpen = 64,  // lane: it takes tasks
  kLaneOver,       // lane, code, text: it does not, or not any more: why. What was sent may or may not have run
  kTaskRoom,       // lane, bytes_done
  kResult,         // lane, number, index, value: as kArgument
  kResultPart,     // lane, bytes
  kDone,           // lane, done
  kReturned,       // lane, number, flags: it has not begun and never will; bytes: why, if it was not asked for
};

enum ReturnedFlags : uint32_t {
  kBound = 1,            // it could not have run there
  kUnknownFunction = 2,  // its definition is not there any more: to be told again
};

// How a task ended, beside its code.
enum DoneFlags : uint32_t {
  kFinal = 1,  // an error that no retry would help
  kDied = 2,   // its worker died while it ran
};

// A value without references. In place: the views. Apart: the sizes alone.
struct Value {
  bool given = false;  // results: there is one
  bool apart = false;
  uint32_t format = 0;  // wire::kFmtError: data is a packed error
  std::string_view data;
  std::vector<std::string_view> oob;
  uint64_t size = 0;
  std::vector<uint64_t> oob_sizes;
  uint64_t bytes() const;  // data and buffers
};

struct Task {
  uint64_t number = 0;  // the opener's, never used again in the lane; not 0
  TaskId id, parent;
  uint32_t attempt = 0;
  uint64_t function = 0;  // key
  std::string_view name;
  uint32_t n_returns = 0;
  int32_t caller = 0;  // language of who submitted it
  std::vector<Value> args;
};

struct Done {
  uint64_t number = 0;
  int32_t code = 0;
  uint32_t flags = 0;
  uint64_t run_ns = 0;
  std::vector<Value> results;  // an error: one, the packed error
};

struct Record {
  Kind kind = Kind::kJob;
  uint64_t lane = 0, number = 0, key = 0;
  Id job;
  uint32_t index = 0, flags = 0;
  int32_t code = 0, language = 0;
  uint32_t function_kind = 0;
  uint64_t bytes_done = 0;
  bool more = false;
  std::string_view name, bytes;  // kLaneOver, kReturned: bytes is the text
  Value value;
  Task task;
  Done done;
  uint64_t size = 0;  // in its message: what is counted. Set by both encode and decode
};

bool is_counted(Kind kind);

// Appends one record; its size.
uint64_t encode(const Record& r, std::string* out);
// Whether such a value goes in place. `in_record`: bytes that its record has already.
bool fits_in_place(uint64_t bytes, uint64_t in_record);

// The records of a message, one after the other.
class RecordReader {
 public:
  explicit RecordReader(std::string_view message) : message_(message), at_(message) {}
  // False at the end, and when the bytes are none of ours: then status() says so.
  bool next(Record* out);
  const Status& status() const { return status_; }

 private:
  std::string_view message_;
  wire::Cursor at_;
  size_t before_ = 0;
  Status status_;
};

}  // namespace ray::relay
