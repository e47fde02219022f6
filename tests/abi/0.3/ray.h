/* SPDX-License-Identifier: Apache-2.0 */
/* ray.h -- the public C API of libray: tasks, actors, futures, get, wait.
 *
 * libray runs functions (tasks) and objects with state (actors) in worker processes. Every call returns at once
 * with references (ray_ref) to its results; get and wait block on them. This header is the whole API: all language
 * bindings use it and nothing else. It is C99; sections follow the life of a program. Link with -lray (libray.so); what
 * else runs, ray_init finds and starts.
 *
 * Conventions, true everywhere:
 *  1. A function that can fail returns a ray_code; RAY_OK is 0. Outputs come last, before `ray_error **err`.
 *     `err` may be NULL: then no message is built. On failure outputs are untouched, except where said.
 *  2. Handles are opaque and owned by whoever received them: a `foo **out` gives one count, foo_retain adds one,
 *     foo_release drops one. A call that is given a handle looks at it and takes no count, unless it says "consumes".
 *     foo_release(NULL) does nothing. Release in any order. A null, stale or foreign handle
 *     is RAY_INVALID_ARGUMENT (or a no-op where no code is returned), never a crash: a handle is a tagged number,
 *     not an address. A release too many takes no count but your own: what the runtime needs it keeps.
 *  3. Structs that may grow start with struct_size, or have reserved words; make all of them with their RAY_*_INIT
 *     macro. struct_size is that of a published header: larger than this library knows is accepted if the unknown tail
 *     is zero, else RAY_UNSUPPORTED; absent tail fields mean 0; other sizes are RAY_INVALID_ARGUMENT. So are unknown
 *     flags and enumerators, and reserved words that are not 0: they may mean something later.
 *  4. Timeouts are int64_t nanoseconds: -1 = for ever, 0 = do not block. Values below -1 are RAY_INVALID_ARGUMENT.
 *  5. Any function may be called from any thread. Those marked [task thread] are for the thread that took the task:
 *     from another one they work as well, if you see to it that they do not overlap (a pool that finishes what one
 *     thread took); but the ids of what a thread submits, and whether its waits end with a cancellation, go by the
 *     task that it took or entered (ray_worker_enter).
 *  6. No function throws, exits, aborts on a user's mistake, or installs a signal handler. Callbacks run without a
 *     lock held, except ray_interrupt_fn, and exactly once; `void *user` comes last.
 *  7. Strings and bytes are views {data, size}. Passed in, size RAY_NUL means "nul-terminated", and the view is copied
 *     before the call returns. Handed out, a view is borrowed from the handle it came from, has its true size, and a
 *     text (not bytes) has a nul behind it.
 *  8. In a forked child nothing of the parent's runtime can be used, and nothing changes it: calls answer
 *     RAY_WRONG_STATE, releases do nothing, and none waits for a lock of a thread that is not there. Errors can be read.
 *     Buffers show what they showed at the fork, as long as the child keeps its descriptors; an object under
 *     construction (ray_layout) is not there: touching it is a segmentation fault. The child may ray_init its own.
 *  9. ray_THING_id gives an id (ray_ref_id, ray_actor_id, ray_stream_id); ray_THING_get_X and ray_THING_X look, and
 *     change no count.
 */
#ifndef RAY_H
#define RAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef RAY_API
#define RAY_API __attribute__((visibility("default")))
#endif

/* The null pointer of the INIT macros: C++ compilers can be told to warn of 0. */
#ifdef __cplusplus
#define RAY_NULL nullptr
#else
#define RAY_NULL NULL
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1. Version ------------------------------------------------------------------------------------------------ */

/* Of this header: major << 16 | minor << 8 | patch. Within a major from 1 on, symbols and numbers are only added and
 * structs only grow; while it is 0, a new minor may change them. */
#define RAY_API_VERSION 0x000300u

/* Version of the loaded library. A binding refuses another major, or a minor lower than the one it was built with. */
RAY_API uint32_t ray_api_version(void);
/* "0.3.0 (gcc 12.2, release)"; static storage. */
RAY_API const char *ray_build_info(void);

/* ---- 2. Views, codes and errors -------------------------------------------------------------------------------- */

/* Limits; what is over them is RAY_INVALID_ARGUMENT. Timeouts and sizes of values have none but memory. */
#define RAY_MAX_NAME 4096           /* bytes of a name, namespace, path or signature */
#define RAY_MAX_KEY (60 * 1024)     /* bytes of a key of ray_kv_put */
#define RAY_MAX_METADATA (240 * 1024) /* bytes of ray_actor_options.metadata */
#define RAY_MAX_SHARDS 64           /* ray_runtime_options.gcs_shards */
#define RAY_MAX_RETURNS 3968        /* ray_task_options.num_returns */

#define RAY_NUL SIZE_MAX
typedef struct ray_str {
  const char *data; /* UTF-8 */
  size_t size;      /* bytes, or RAY_NUL */
} ray_str;
typedef struct ray_bytes {
  const void *data;
  size_t size;
} ray_bytes;
#define RAY_STR_INIT { RAY_NULL, 0 }
#define RAY_BYTES_INIT { RAY_NULL, 0 }
/* Views of a C string and of nothing. */
static inline ray_str ray_cstr(const char *s) {
  ray_str v;
  v.data = s;
  v.size = s ? RAY_NUL : 0;
  return v;
}

typedef int32_t ray_code; /* one of: */
enum {
  RAY_OK = 0,
  RAY_CANCELLED = 1,        /* the task was cancelled, or its runtime was shut down; of a call that waits: the task
                               that waits was cancelled */
  RAY_INVALID_ARGUMENT = 2, /* null, stale or foreign handle; wrong size; malformed value */
  RAY_TIMED_OUT = 3,        /* retryable */
  RAY_NOT_FOUND = 4,
  RAY_ALREADY_EXISTS = 5,
  RAY_OUT_OF_MEMORY = 6,
  RAY_UNAVAILABLE = 7, /* a daemon cannot be reached now; retryable */
  RAY_WRONG_STATE = 8, /* right call, wrong moment: e.g. a worker call in a driver */
  RAY_UNSUPPORTED = 9,
  RAY_INTERNAL = 10,
  RAY_CONFLICT = 11, /* compare-and-swap lost; retryable after a new read */
  RAY_TASK_FAILED = 100,      /* the user's function failed; the payload holds its exception */
  RAY_WORKER_CRASHED = 101,   /* the worker died and no retry was left */
  RAY_OBJECT_LOST = 102,      /* every copy is gone and it cannot be made again */
  RAY_UNSCHEDULABLE = 103,    /* can no longer be placed: what it was to run on is gone for good */
  RAY_ACTOR_DIED = 104,       /* for good */
  RAY_ACTOR_RESTARTING = 105, /* the call was lost to a restart; retryable */
  RAY_STREAM_END = 106,       /* not an error: the generator is exhausted */
  RAY_STORE_FULL = 107,       /* memory and disk of the object store are full */
  RAY_NODE_DIED = 108,        /* the node daemon is gone; this runtime can only be shut down */
  RAY_GROUP_REMOVED = 109,    /* the placement group that it was to run in was removed */
  RAY_UNKNOWN_FUNCTION = 110  /* the worker knows no function, class or method of that name */
};

typedef struct ray_error ray_error; /* immutable, counted, readable from any thread */

/* "RAY_OBJECT_LOST"; static storage; "RAY_UNKNOWN" for a number that is no code. */
RAY_API const char *ray_code_name(ray_code code);
/* Whether the same call may succeed later. The one place where bindings ask. */
RAY_API bool ray_code_is_retryable(ray_code code);
/* RAY_INVALID_ARGUMENT for a bad handle; never RAY_OK. */
RAY_API ray_code ray_error_code(const ray_error *error);
/* One line for people, that names what failed (of a task: its name, id, attempt, worker and node) and the remedy. What was
 * given to ray_task_fail stands at its end, behind words that are not for programs to take apart: what a program is to
 * read belongs into the payload. Borrowed. */
RAY_API ray_str ray_error_message(const ray_error *error);
/* The remote exception as the failing function gave it to ray_task_fail (a serialised value in the format that
 * *out_format tells; out_format may be NULL); empty when there is none. Borrowed from the error. Bindings give a
 * MessagePack map, which all of them read: {"language", "type", "message": str, and where known "stack", "function": str,
 * "pid": int, "cause": such a map, "private": [format, bin] = the exception itself, for readers of the same language}. */
RAY_API ray_bytes ray_error_payload(const ray_error *error, uint32_t *out_format);
RAY_API ray_error *ray_error_retain(ray_error *error);
RAY_API void ray_error_release(ray_error *error);

/* ---- 3. Logging ------------------------------------------------------------------------------------------------ */

enum { RAY_LOG_ERROR = 1, RAY_LOG_WARNING = 2, RAY_LOG_INFO = 3, RAY_LOG_DEBUG = 4 };
/* `module` and `msg_id` are short stable names ("runtime", "worker-died"): filter by them, not by the text. */
typedef void (*ray_log_fn)(int32_t level, ray_str module, ray_str msg_id, ray_str text, void *user);
/* Process-wide. fn NULL restores standard error. max_level: least severe level that is delivered; the environment
 * variable LIBRAY_LOG=error|warning|info|debug overrides it. The handler is called from any thread. When the call
 * returns, the handler before is not running and will not be called again (unless it is the one that calls): its
 * `user` may be freed, which is why there is no destructor. */
RAY_API void ray_set_log_handler(ray_log_fn fn, int32_t max_level, void *user);

/* ---- 4. Runtime: start, join, stop ----------------------------------------------------------------------------- */

typedef struct ray_runtime ray_runtime; /* one connection of this process to a node; several may coexist */

enum { RAY_MODE_DRIVER = 0, RAY_MODE_WORKER = 1 };
enum { RAY_LANG_NATIVE = 0, RAY_LANG_PYTHON = 1, RAY_LANG_JAVA = 2, RAY_LANG_RUST = 3, RAY_LANG_COUNT = 4 };

typedef struct ray_runtime_options {
  size_t struct_size;
  ray_str address;     /* empty: start a private one-node cluster that dies with this process; else the path of the
                          session directory to join (LIBRAY_ADDRESS in the environment is the default) */
  ray_str ns;          /* namespace of named actors; empty = one of its own for this job */
  ray_str session_dir; /* parent of the session directory; empty = LIBRAY_TMPDIR, else /tmp/libray-UID. One that
                          everybody may write to, such as /tmp, gets a folder of this user's */
  double num_cpus;     /* 0 = the number of processors this process may use */
  ray_bytes resources_msgpack; /* further resources of the node: map of name -> number, e.g. {"GPU": 2, "disk": 0.5} */
  uint64_t store_bytes;        /* capacity of the object store in RAM; 0 = 30 % of the machine's memory */
  uint64_t spill_bytes;        /* how much may be spilled to disk; 0 = no limit but the disk */
  uint32_t gcs_shards;         /* 0 = 2 */
  int32_t language;            /* RAY_LANG_*: what this program's own tasks are written in */
  const char *const *worker_argv; /* NULL-terminated command of workers of that language; NULL = this very program when
                                     functions were registered before ray_init, else the generic native worker. Nothing
                                     is added: this program is run with argv[0] = its path and no arguments, in the
                                     driver's directory and environment; ray_runtime_mode tells the two apart */
  ray_str job_name;
} ray_runtime_options;
#define RAY_RUNTIME_OPTIONS_INIT \
  { sizeof(ray_runtime_options), RAY_STR_INIT, RAY_STR_INIT, RAY_STR_INIT, 0.0, RAY_BYTES_INIT, 0, 0, 0, 0, \
    RAY_NULL, RAY_STR_INIT }

/* Starts or joins a cluster. options NULL = all defaults. To start one, it runs the daemon `rayd`: the program that
 * LIBRAY_RAYD in the environment names, else the one in the folder of libray.so, else that in ../bin from there. In a
 * process that libray started as a worker it joins that worker's node whatever the options say: ask ray_runtime_mode and
 * call ray_worker_run. What workers write to their standard output and error is in the files logs/worker-*.out and .err
 * of the session directory. Blocks until the node takes work. A runtime does not survive a fork (convention 8). Errors:
 * RAY_UNAVAILABLE (the daemon did not start: the message names its log file), RAY_INVALID_ARGUMENT, RAY_OUT_OF_MEMORY. */
RAY_API ray_code ray_init(const ray_runtime_options *options, ray_runtime **out, ray_error **err);
/* RAY_MODE_DRIVER or RAY_MODE_WORKER; -1 for a bad handle. */
RAY_API int32_t ray_runtime_mode(const ray_runtime *runtime);
/* Directory that holds this session's logs, journal and sockets (mode 0700). Borrowed from the runtime. */
RAY_API ray_str ray_runtime_session_dir(const ray_runtime *runtime);
/* Workers of other languages than the driver's. Where code of `language` lies, for workers of this job: Java: a class path;
 * Rust, native: the program that is its own worker; Python: directories, ':' between them, where its workers look for
 * modules first. libray makes the command of it. Without this call the driver's environment says it (LIBRAY_JAVA_CODE,
 * LIBRAY_RUST_CODE, LIBRAY_NATIVE_CODE, LIBRAY_PYTHON_CODE). Any process of the job may call it, before the first worker of
 * that language starts; after that another code is RAY_WRONG_STATE. */
RAY_API ray_code ray_worker_code(ray_runtime *runtime, int32_t language, ray_str code, ray_error **err);
/* The whole command instead, NULL-terminated; it goes before every other source. Run like worker_argv. */
RAY_API ray_code ray_worker_command(ray_runtime *runtime, int32_t language, const char *const *argv, ray_error **err);
/* Ends the job: refuses new work, waits up to drain_timeout_ns for submitted tasks, cancels the rest, completes every
 * pending notification (RAY_CANCELLED), ends the waits of other threads, kills this job's processes and, if this process
 * started the cluster, ends it after its journal is written (some tenths of a second). A second call is RAY_OK and does
 * nothing. RAY_WRONG_STATE at once, and nothing happens: in a callback (ray_done_fn, ray_log_fn and ray_interrupt_fn on a
 * thread of the runtime), which would wait for its own end, and in a task, whose worker the node ends. */
RAY_API ray_code ray_shutdown(ray_runtime *runtime, int64_t drain_timeout_ns, ray_error **err);
/* ray_shutdown(runtime, 0) if that was not done: what is not finished yet is cancelled, so shut down first to drain. In a
 * callback it returns at once, and a thread of its own shuts down. Child handles stay valid and answer
 * RAY_WRONG_STATE; what came before can still be released and read. */
RAY_API void ray_runtime_release(ray_runtime *runtime);

/* ---- 5. Ids: plain values, comparable with memcmp --------------------------------------------------------------- */

#define RAY_ID_SIZE 24
typedef struct ray_id {
  uint8_t b[RAY_ID_SIZE];
} ray_id; /* of a task, object, actor, node or job. Ids of tasks and objects are a function of the parent task and the
             submit index: a task that runs again makes the same ones (OSDI'18 4.2.1). */
#define RAY_ID_INIT { {0} }
/* Writes 48 hexadecimal digits and a nul. */
RAY_API void ray_id_to_hex(const ray_id *id, char out[2 * RAY_ID_SIZE + 1]);

typedef struct ray_context {
  size_t struct_size;
  ray_id job, node, task, actor; /* task: the one this thread runs, or the driver's; all zero if none */
  uint32_t pid, worker;          /* worker: index of this process on its node */
} ray_context;
#define RAY_CONTEXT_INIT { sizeof(ray_context), RAY_ID_INIT, RAY_ID_INIT, RAY_ID_INIT, RAY_ID_INIT, 0, 0 }
/* Where the calling thread stands. */
RAY_API ray_code ray_runtime_context(ray_runtime *runtime, ray_context *out, ray_error **err);

/* ---- 6. Values and buffers --------------------------------------------------------------------------------------- */

/* A value is bytes in a format, plus out-of-band buffers (large arrays, 64-byte aligned, shared without a copy) and a
 * list of the references it contains, which the runtime keeps alive as long as the value. Readers of every language
 * understand RAW, MSGPACK and ARROW_IPC; the others are private to a language.
 * No value (of a function that returns nothing) is nil: RAY_FMT_MSGPACK, one byte 0xc0. ARROW_IPC: no data, and one
 * out-of-band buffer, which holds an Arrow IPC stream. MessagePack extension types (indices are u32 big endian):
 *  1 = i-th contained ref; 2 = i-th contained ref as an actor handle; 3 = tensor: the MessagePack array [dtype string, shape
 *  array, index of out-of-band buffer], the elements in row-major order without gaps, the dtype as numpy writes it ("<f8",
 *  "<i4", "|u1", "|b1": byte order, kind, bytes); 4 = Arrow table: index of the out-of-band buffer that holds its IPC stream;
 *  16 = an array that is a tuple where the language has them; 17 = of a Python function, as the last argument: array of the
 *  names of the last arguments before it; 19 = [name of a type, value]: who does not know the type takes the value; -1 =
 *  timestamp. docs/cross_language.md has the types of each language. */
enum {
  RAY_FMT_RAW = 0,
  RAY_FMT_MSGPACK = 1,
  RAY_FMT_PICKLE5 = 2,
  RAY_FMT_ARROW_IPC = 3,
  RAY_FMT_JAVA = 4,
  RAY_FMT_USER = 0x1000 /* and above, to 0x7fffffff: yours; what is in between is refused */
};
typedef struct ray_ref ray_ref;     /* counted reference to a result that exists or will exist: a future */
typedef struct ray_actor ray_actor; /* handle of an actor, counted or weak: section 10 */

typedef struct ray_value {
  const void *data;
  size_t size;
  uint32_t format;
  uint32_t n_refs; /* at most 2^24 */
  ray_ref *const *refs;
  const ray_bytes *oob;
  size_t n_oob;
  uint64_t reserved[2]; /* 0; of an argument (ray_arg) too, with a reference as well */
} ray_value;
#define RAY_VALUE_INIT { RAY_NULL, 0, 0, 0, RAY_NULL, RAY_NULL, 0, {0, 0} }
/* A value without buffers or references. */
static inline ray_value ray_plain(const void *data, size_t size, uint32_t format) {
  ray_value v = RAY_VALUE_INIT;
  v.data = data;
  v.size = size;
  v.format = format;
  return v;
}

/* A value that came out of the runtime. Caller-allocated, moved by memcpy, ended with ray_buffer_release (of one copy).
 * `data` and `oob` stay valid until the release, wherever they lie, and are not to be written: values above 8 KiB are in
 * shared memory, where a write is a segmentation fault; smaller ones are in plain memory of this process, where nothing
 * stops a write and other readers may see it. */
typedef struct ray_buffer {
  const void *data;
  uint64_t size;
  uint32_t format;
  uint32_t n_refs;
  const ray_bytes *oob;
  uint64_t n_oob;
  void (*release)(struct ray_buffer *self); /* NULL = released */
  void *private_data;
  uint64_t reserved[2]; /* the library's */
} ray_buffer;
#define RAY_BUFFER_INIT { RAY_NULL, 0, 0, 0, RAY_NULL, 0, RAY_NULL, RAY_NULL, {0, 0} }
/* Calls and clears buffer->release. Safe on a zeroed or released buffer. */
RAY_API void ray_buffer_release(ray_buffer *buffer);
/* The index-th reference inside the value. Valid while the buffer is unreleased. */
RAY_API ray_code ray_buffer_ref(const ray_buffer *buffer, uint32_t index, ray_ref **out, ray_error **err);
/* n of them from the first-th on, all or none: cheaper than one by one. */
RAY_API ray_code ray_buffer_refs(const ray_buffer *buffer, uint32_t first, uint32_t n, ray_ref **out, ray_error **err);

/* Puts a value into the object store and returns a reference to it. Copies once; blocks only when the store is full
 * and then at most until spilling made room (RAY_STORE_FULL after 10 s without progress). */
RAY_API ray_code ray_put(ray_runtime *runtime, const ray_value *value, ray_ref **out, ray_error **err);

/* Asked about every 50 ms, on the caller's thread and without a lock of ours, by calls that wait for room in the object
 * store (ray_put; ray_submit and ray_actor_call with large arguments) or for a value on disk (ray_get; ray_worker_next for
 * arguments): true ends the call, or fails that task, with RAY_CANCELLED. Bindings look at their interpreter's signals here.
 * fn NULL = never asked. Set before other threads use the runtime; good until it is shut down: `user` may be freed then. */
typedef bool (*ray_wait_fn)(void *user);
RAY_API ray_code ray_on_wait(ray_runtime *runtime, ray_wait_fn fn, void *user, ray_error **err);

/* A reference to an object that failed: get answers `code` with this message and payload (may be NULL; bytes alone, no
 * buffers or references). For bindings that hand out references to parts of a result of which one could not be made. */
RAY_API ray_code ray_put_error(ray_runtime *runtime, ray_code code, ray_str message, const ray_value *payload,
                               ray_ref **out, ray_error **err);

/* An object under construction, straight in shared memory: no copy. If the process dies before the seal, the object
 * never existed. One thread at a time. */
typedef struct ray_writer ray_writer;
typedef struct ray_layout { /* where the parts go; filled by ray_writer_open */
  void *data;
  void **oob; /* n_oob addresses, 64-byte aligned; borrowed from the writer */
} ray_layout;
#define RAY_LAYOUT_INIT { RAY_NULL, RAY_NULL }
/* Sizes come from `shape`: data and oob[i].data are ignored, sizes, format and refs count. */
RAY_API ray_code ray_writer_open(ray_runtime *runtime, const ray_value *shape, ray_writer **out, ray_layout *layout,
                                 ray_error **err);
/* Commits and consumes the writer, also when it fails. */
RAY_API ray_code ray_writer_seal(ray_writer *writer, ray_ref **out, ray_error **err);
/* Drops and consumes the writer. */
RAY_API ray_code ray_writer_abort(ray_writer *writer);

/* ---- 7. References ------------------------------------------------------------------------------------------------ */

RAY_API ray_ref *ray_ref_retain(ray_ref *ref);
/* The last release in the last process frees the object. */
RAY_API void ray_ref_release(ray_ref *ref);
/* All zero for a bad handle. */
RAY_API ray_id ray_ref_id(const ray_ref *ref);
/* A reference to an object that this process refers to already, by its id; RAY_NOT_FOUND. Looks at every reference. */
RAY_API ray_code ray_ref_find(ray_runtime *runtime, const ray_id *id, ray_ref **out, ray_error **err);
/* Serialises a reference to send it by other means (a file, a socket). *inout_size: capacity in, size out; buf NULL asks
 * for the size. An exported reference keeps its object alive until the job ends, for nobody can know when the bytes
 * are used: prefer putting references inside values. Another cluster's export is RAY_INVALID_ARGUMENT. */
RAY_API ray_code ray_ref_export(ray_ref *ref, void *buf, size_t *inout_size, ray_error **err);
RAY_API ray_code ray_ref_import(ray_runtime *runtime, ray_bytes exported, ray_ref **out, ray_error **err);
/* A reference that stands for an actor handle, to be listed in ray_value.refs, and back. Each gives a new count. The
 * reference keeps the actor alive, and so does a handle made from it, also if the reference was made from a weak one. */
RAY_API ray_code ray_actor_to_ref(ray_actor *actor, ray_ref **out, ray_error **err);
RAY_API ray_code ray_actor_from_ref(ray_ref *ref, ray_actor **out, ray_error **err);

/* ---- 8. Waiting: poll, block, or be told ------------------------------------------------------------------------- */

/* Never blocks; no syscall when the value is local. RAY_TIMED_OUT = not ready, or on disk: then it is brought back, and
 * ray_get waits for it. A failed task's error comes back as its code and error, as in ray_get. */
RAY_API ray_code ray_try_get(ray_ref *ref, ray_buffer *out, ray_error **err);
/* Blocks until all n values are there (duplicates allowed) and fills out[0..n) in order. If any failed, or the time is
 * over, nothing is filled; as soon as one has failed, the error of the first in order among those that are there is
 * returned, whatever is still pending. The time is that of the whole call, values that lie on disk included. What finds
 * no room in the store beside the values in use is read into memory of the caller's own; past the node's limit for such
 * copies, and without progress for 10 s: RAY_STORE_FULL. A worker that blocks here lends its CPU.
 * Of this and every call that waits: in a native task that was cancelled it answers RAY_CANCELLED instead of sleeping
 * (what is there is still given). Where a binding interrupts its interpreter (ray_worker_on_interrupt) that does it. */
RAY_API ray_code ray_get(ray_runtime *runtime, ray_ref *const *refs, size_t n, int64_t timeout_ns, ray_buffer *out,
                         ray_error **err);
/* Blocks until `want` of n are complete (value or error) or the time is over; RAY_OK in both cases. ready[i] = 1 for at
 * most `want` references, first in input order; *n_ready counts them. want > n and duplicates: RAY_INVALID_ARGUMENT. */
RAY_API ray_code ray_wait(ray_runtime *runtime, ray_ref *const *refs, size_t n, size_t want, int64_t timeout_ns,
                          uint8_t *ready, size_t *n_ready, ray_error **err);

typedef struct ray_queue ray_queue; /* completion queue: many pending operations, one descriptor, no thread per call */
typedef struct ray_completion {
  uint64_t tag;
  ray_code code; /* of the object: RAY_OK = a value is there; ray_try_get has it, or ray_get from disk. Of a stream: RAY_OK
                    = an item is there, RAY_STREAM_END. At the shutdown: RAY_CANCELLED */
  uint32_t kind; /* RAY_COMPLETION_* */
  ray_ref *ref;  /* owned by the receiver: release it. Streams: NULL */
  ray_error *error; /* owned by the receiver; NULL when code is RAY_OK */
  uint64_t reserved[2]; /* the library's */
} ray_completion;
#define RAY_COMPLETION_INIT { 0, 0, 0, RAY_NULL, RAY_NULL, {0, 0} }
enum { RAY_COMPLETION_READY = 1, RAY_COMPLETION_STREAM_ITEM = 2, RAY_COMPLETION_STREAM_END = 3 };
RAY_API ray_code ray_queue_create(ray_runtime *runtime, ray_queue **out, ray_error **err);
/* Pending notifications of this queue are dropped; a thread in ray_queue_poll leaves. A queue has one owner, no counts. */
RAY_API void ray_queue_release(ray_queue *queue);
/* Readable (level-triggered) if and only if the queue is not empty. Poll it, never read it. -1 for a bad handle. */
RAY_API int ray_queue_fd(const ray_queue *queue);
/* Moves up to max completions to out, waiting up to timeout_ns for the first; *out_count tells how many. RAY_OK with none
 * = ray_queue_wake. RAY_TIMED_OUT = none came. RAY_WRONG_STATE = none is left and none will come: the runtime was shut
 * down, or the queue released meanwhile. *out_count is 0 whenever the code is not RAY_OK. */
RAY_API ray_code ray_queue_poll(ray_queue *queue, ray_completion *out, size_t max, int64_t timeout_ns,
                                size_t *out_count, ray_error **err);
/* Makes a blocked ray_queue_poll return now. Async-signal-safe. Sticky: with nobody blocked, the next ray_queue_poll that
 * finds the queue empty returns at once. One poll takes all wakes so far. The descriptor shows completions alone, no
 * wakes. */
RAY_API void ray_queue_wake(ray_queue *queue);

typedef void (*ray_done_fn)(const ray_completion *completion, void *user);
typedef struct ray_notify {
  size_t struct_size;
  ray_queue *queue; /* exactly one of queue and fn */
  ray_done_fn fn;   /* called on a runtime thread; must not block; takes over completion->ref and ->error. The
                       completion itself is gone when fn returns */
  void *user;
  uint64_t tag;
  uint32_t flags; /* RAY_NOTIFY_* */
  uint32_t reserved;
  void (*free_user)(void *user); /* NULL, or called once, on any thread, when `user` is of no more use: after fn
                                    returned, after the completion went to the queue, or when the notification was
                                    cancelled or dropped. Not when the call that was to make it failed */
} ray_notify;
enum { RAY_NOTIFY_MAY_RUN_INLINE = 1 /* fn may run inside ray_on_ready when the object is ready already; not deeper
                                        than 8 callbacks in one another */ };
#define RAY_NOTIFY_INIT { sizeof(ray_notify), RAY_NULL, RAY_NULL, RAY_NULL, 0, 0, 0, RAY_NULL }
/* One notification when the object has a value or an error, or with RAY_CANCELLED at the shutdown; after that:
 * RAY_WRONG_STATE. The queue is of the same runtime. *out_token (may be NULL) serves to cancel it. */
RAY_API ray_code ray_on_ready(ray_ref *ref, const ray_notify *notify, uint64_t *out_token, ray_error **err);
/* After it returned RAY_OK the callback will not run; RAY_NOT_FOUND = it ran, runs or is queued. */
RAY_API ray_code ray_cancel_notify(ray_runtime *runtime, uint64_t token, ray_error **err);

/* ---- 9. Functions and tasks ----------------------------------------------------------------------------------------- */

typedef struct ray_function ray_function; /* a remote function or actor class of a runtime, resolved once */

/* Handle of a native function or class by the name it is registered under in the workers (section 12), or that
 * ray_define_symbol or ray_define_library made known. Does not check that it exists: the task will say so, with
 * RAY_UNKNOWN_FUNCTION. */
RAY_API ray_code ray_function_get(ray_runtime *runtime, ray_str name, ray_function **out, ray_error **err);
/* Publishes code in a private format for workers of `language`, once per (name, definition), in the function table
 * (OSDI'18 4.2.1: the function is pushed to all workers); workers read it with ray_task_definition. */
RAY_API ray_code ray_function_define(ray_runtime *runtime, int32_t language, ray_str name, ray_bytes definition,
                                     ray_function **out, ray_error **err);
/* A function or actor class of any language by its name. Python: container = module, member = qualified name. Java:
 * container = class, member = static method; empty = the class, as an actor class. Native, Rust: the name that it is
 * registered under is member, or container + "::" + member. Workers know it by the definition ["libray-name", container,
 * member] (MessagePack), and ray_worker_run by its registered name. Whether it exists the task will say
 * (RAY_UNKNOWN_FUNCTION); RAY_UNSUPPORTED = this job knows no command for workers of that language: ray_worker_code. */
RAY_API ray_code ray_function_named(ray_runtime *runtime, int32_t language, ray_str container, ray_str member,
                                    ray_function **out, ray_error **err);
RAY_API ray_function *ray_function_retain(ray_function *function);
RAY_API void ray_function_release(ray_function *function);

/* An argument: a reference (the task waits for it and sees its value) or a value in place. It needs no reserved words of
 * its own to grow: those of `value` are its own, so set `value` with a reference too (RAY_ARG_INIT, or ray_plain). */
typedef struct ray_arg {
  ray_ref *ref; /* NULL = use value */
  ray_value value;
} ray_arg;
#define RAY_ARG_INIT { RAY_NULL, RAY_VALUE_INIT }

/* Where on the node or in which group something may run. */
typedef struct ray_placement {
  size_t struct_size;
  ray_id group;   /* of ray_group_create; all zero = in no group */
  int32_t bundle; /* its index in the group; -1 = any bundle with room */
  uint32_t flags; /* RAY_PLACEMENT_* */
  ray_id node;    /* all zero = any. A node that is not there: RAY_UNSCHEDULABLE, unless SOFT */
} ray_placement;
#define RAY_PLACEMENT_INIT { sizeof(ray_placement), RAY_ID_INIT, -1, 0, RAY_ID_INIT }
enum { RAY_PLACEMENT_SOFT = 1 /* another node will do */ };

#define RAY_RETRIES_DEFAULT (-2) /* 3 for tasks, 0 for actor methods */
#define RAY_RETRIES_INFINITE (-1)
typedef struct ray_task_options {
  size_t struct_size;
  ray_str name;                /* for people: errors, tools; empty = the function's */
  ray_bytes resources_msgpack; /* map of name -> number; empty = {"CPU": 1}; fractions down to 0.0001. More than any
                                  node has: the task waits for a node that can run it, and a warning says why.
                                  The entry "runtime_env" is a map for the worker: {"env_vars": {str: str},
                                  "working_dir": str, ...bindings' own}; equal ones share workers */
  int32_t max_retries;         /* executions after a worker crash */
  uint32_t num_returns;        /* as given; 0 = none (fire and forget): what the function gives is dropped */
  uint32_t stream_window;      /* streams: unconsumed items before the producer waits; 0 = 64 */
  uint32_t flags;              /* RAY_TASK_* */
  const ray_placement *placement; /* NULL = anywhere */
  uint32_t group;              /* actor calls: concurrency group (ray_worker_set_groups); 0 = the default */
  uint32_t reserved;
} ray_task_options;
#define RAY_TASK_OPTIONS_INIT \
  { sizeof(ray_task_options), RAY_STR_INIT, RAY_BYTES_INIT, RAY_RETRIES_DEFAULT, 1, 0, 0, RAY_NULL, 0, 0 }
enum {
  RAY_TASK_RETRY_ON_ERROR = 1, /* max_retries counts failures of the user's function too */
  RAY_TASK_RUN_TO_END = 2      /* streams: the last release does not cancel the generator; it runs to its end without
                                  waiting for room, and what it makes from then on is dropped */
};

/* Submits a task and returns at once; never waits for a scheduler, the control store or the disk. out_refs receives
 * options->num_returns references (1 when options is NULL); it may be NULL for 0. Arguments: small values travel inline;
 * larger ones are put into the store first, which may block as ray_put does. An argument that failed: the function is
 * not called, and the results fail with the argument's code and payload, and a message that names both. */
RAY_API ray_code ray_submit(ray_runtime *runtime, ray_function *function, const ray_arg *args, size_t n_args,
                            const ray_task_options *options, ray_ref **out_refs, ray_error **err);

typedef struct ray_stream ray_stream; /* results of a generator task, in order */
RAY_API ray_code ray_submit_stream(ray_runtime *runtime, ray_function *function, const ray_arg *args, size_t n_args,
                                   const ray_task_options *options, ray_stream **out, ray_error **err);
/* The next item as a reference that is ready; RAY_STREAM_END after the last. A generator that fails gives its error as
 * one last item (a reference whose get fails), then RAY_STREAM_END. */
RAY_API ray_code ray_stream_next(ray_stream *stream, int64_t timeout_ns, ray_ref **out, ray_error **err);
/* Waits until `want` of the references and streams together are ready or the time is over; RAY_OK in both cases. A
 * stream is ready when its next item, or its end, is there; nothing is taken from it. ready_refs[i] and
 * ready_streams[i] = 1 for all that are ready. Duplicates: RAY_INVALID_ARGUMENT. */
RAY_API ray_code ray_wait_any(ray_runtime *runtime, ray_ref *const *refs, size_t n_refs, ray_stream *const *streams,
                              size_t n_streams, size_t want, int64_t timeout_ns, uint8_t *ready_refs,
                              uint8_t *ready_streams, ray_error **err);
/* A reference that is ready when the generator's task is over: nil, or its error. The same object at each call. */
RAY_API ray_code ray_stream_completed(ray_stream *stream, ray_ref **out, ray_error **err);
/* One notification when the next item, or the end, is there: a RAY_COMPLETION_STREAM_ITEM or _STREAM_END without a ref.
 * It takes nothing from the stream: ray_stream_next(stream, 0, ...) does, and with several consumers it may find that
 * another was faster (RAY_TIMED_OUT: ask again). Each item goes to one consumer, in the order of their takes. Any number
 * of notifications may wait; *out_token (may be NULL) cancels this one (ray_cancel_notify). The last release tells
 * them of the end. */
RAY_API ray_code ray_stream_on_next(ray_stream *stream, const ray_notify *notify, uint64_t *out_token, ray_error **err);
/* Id of the generator's task. */
RAY_API ray_id ray_stream_id(const ray_stream *stream);
/* Ends the producer: queued = never runs; running = its next yield fails with RAY_CANCELLED. */
RAY_API ray_code ray_stream_cancel(ray_stream *stream, uint32_t flags, ray_error **err);
RAY_API ray_stream *ray_stream_retain(ray_stream *stream);
/* The last release frees unconsumed items and cancels the producer, unless it was submitted with RAY_TASK_RUN_TO_END. */
RAY_API void ray_stream_release(ray_stream *stream);

enum { RAY_CANCEL_FORCE = 1, RAY_CANCEL_RECURSIVE = 2 /* its children too */ };
/* Cancels the task that makes this object: queued = never runs; running = ray_task_is_cancelled turns true and the
 * binding interrupts it; FORCE kills the worker. get answers RAY_CANCELLED (FORCE: RAY_WORKER_CRASHED). A finished task
 * keeps its result. Actor calls: no FORCE (RAY_UNSUPPORTED). Cancelled tasks are not retried. Of a reference that came
 * from another process, the request goes to the process that submitted the task. */
RAY_API ray_code ray_cancel(ray_ref *ref, uint32_t flags, ray_error **err);

/* ---- 10. Actors ----------------------------------------------------------------------------------------------------- */

/* A handle is counted or weak, for life. The one that the creator gets is counted, and so are those made from a reference.
 * Weak are those of ray_actor_find, ray_worker_actor and ray_actor_from_id, and of ray_actor_create when it found an older
 * actor: an actor can be looked up, or refer to itself, and still ends when those who were given it let go. An actor that
 * is not detached ends when the last counted handle and the last reference to it are gone, in all processes, after the
 * calls that have reached it and those that wait for their arguments in a process that made them through a weak handle.
 * Calls through a weak handle of an actor that has ended fail with RAY_ACTOR_DIED. To pass a handle on and have it
 * count, send the reference of ray_actor_to_ref; to have it weak there too, send the id. */
enum { RAY_LIFETIME_COUNTED = 0 /* ends with its last counted handle */, RAY_LIFETIME_DETACHED = 1 /* ends when killed */ };
typedef struct ray_actor_options {
  size_t struct_size;
  ray_str name, ns;            /* empty name = anonymous; empty ns = the runtime's */
  ray_bytes resources_msgpack; /* held for life; empty = nothing while it runs. "runtime_env": as for tasks */
  int32_t max_restarts;        /* RAY_RETRIES_INFINITE allowed. A restart begins at once, there is no back-off: a
                                  constructor that crashes has soon used them up */
  int32_t max_task_retries;    /* of calls lost to a restart; RAY_RETRIES_DEFAULT = 0 */
  uint32_t max_concurrency;    /* calls that ray_worker_next hands out before one is finished; 0 = 1. ray_worker_run
                                  runs one at a time whatever stands here */
  int32_t lifetime;
  uint32_t max_pending_calls; /* per handle and process; 0 = no limit; over it: RAY_UNAVAILABLE */
  uint32_t flags;             /* RAY_ACTOR_* */
  ray_bytes metadata;         /* the binding's own (method table...): comes back from ray_actor_metadata */
  const ray_placement *placement; /* NULL = anywhere */
} ray_actor_options;
#define RAY_ACTOR_OPTIONS_INIT \
  { sizeof(ray_actor_options), RAY_STR_INIT, RAY_STR_INIT, RAY_BYTES_INIT, 0, RAY_RETRIES_DEFAULT, 0, 0, 0, 0, \
    RAY_BYTES_INIT, RAY_NULL }
enum {
  RAY_ACTOR_GET_IF_EXISTS = 1, /* with a name: a weak handle of the existing actor instead of RAY_ALREADY_EXISTS */
  RAY_ACTOR_OUT_OF_ORDER = 2   /* a call whose arguments are there overtakes calls that wait for theirs */
};

/* Creates an actor and returns at once, except with a name: then it waits for the name to be taken. Failure of the
 * constructor shows in the first call (RAY_ACTOR_DIED with the cause as payload). OSDI'18 3.1. */
RAY_API ray_code ray_actor_create(ray_runtime *runtime, ray_function *klass, const ray_arg *args, size_t n_args,
                                  const ray_actor_options *options, ray_actor **out, ray_error **err);
/* A call; options, out_refs and arguments as of ray_submit. Calls through one process's handles of an actor run in the
 * order they were made, unless the actor was made with RAY_ACTOR_OUT_OF_ORDER; calls of several processes that wait for
 * it run in the order of their submission, apart from the first calls of a process, whose way to the actor has yet to be
 * made. While the actor restarts, a call without retries fails at once: RAY_ACTOR_RESTARTING. options->resources are
 * ignored. RAY_UNAVAILABLE = max_pending_calls reached; through a handle that was passed or found the second call may
 * wait for the node to say how the actor was made: RAY_TIMED_OUT after 30 s. */
RAY_API ray_code ray_actor_call(ray_actor *actor, ray_str method, const ray_arg *args, size_t n_args,
                                const ray_task_options *options, ray_ref **out_refs, ray_error **err);
RAY_API ray_code ray_actor_call_stream(ray_actor *actor, ray_str method, const ray_arg *args, size_t n_args,
                                       const ray_task_options *options, ray_stream **out, ray_error **err);
/* A living actor by name: a weak handle. RAY_NOT_FOUND. */
RAY_API ray_code ray_actor_find(ray_runtime *runtime, ray_str name, ray_str ns, ray_actor **out, ray_error **err);
/* A weak handle of the actor with this id, which may have ended: that shows in its calls. Asks nobody. */
RAY_API ray_code ray_actor_from_id(ray_runtime *runtime, ray_id id, ray_actor **out, ray_error **err);
RAY_API bool ray_actor_is_weak(const ray_actor *actor);
/* Kills its process at once; restarts it if allowed by `may_restart` and max_restarts. */
RAY_API ray_code ray_actor_kill(ray_actor *actor, bool may_restart, ray_error **err);
RAY_API ray_id ray_actor_id(const ray_actor *actor);
/* What the creator gave in options.metadata; borrowed from the handle. Handles found by name or taken from a value
 * may wait for the node to answer. */
RAY_API ray_code ray_actor_metadata(ray_actor *actor, ray_bytes *out, ray_error **err);
/* RAY_LANG_* of its class. May wait like ray_actor_metadata. */
RAY_API ray_code ray_actor_language(ray_actor *actor, int32_t *out, ray_error **err);
RAY_API ray_actor *ray_actor_retain(ray_actor *actor);
/* The last counted handle in the last process ends the actor after its pending calls, unless it is detached. */
RAY_API void ray_actor_release(ray_actor *actor);

/* ---- 11. Placement groups, cluster state, key-value ------------------------------------------------------------------- */

/* A placement group reserves bundles of resources, all of them at once; tasks and actors whose options name the group
 * draw from one of its bundles and from nothing else. How the bundles are to lie on the nodes: */
enum {
  RAY_GROUP_PACK = 0,         /* on few */
  RAY_GROUP_SPREAD = 1,       /* on many */
  RAY_GROUP_STRICT_PACK = 2,  /* on one */
  RAY_GROUP_STRICT_SPREAD = 3 /* each on another: on a single node more than one bundle waits for ever */
};
typedef struct ray_group_options {
  size_t struct_size;
  ray_bytes bundles_msgpack; /* array of maps of name -> amount; none may be empty */
  ray_str name, ns;          /* for people and queries; unique among the living of its namespace; empty ns = the job's */
  int32_t strategy;          /* RAY_GROUP_* */
  int32_t lifetime;          /* RAY_LIFETIME_COUNTED = ends with its job; RAY_LIFETIME_DETACHED = when removed */
} ray_group_options;
#define RAY_GROUP_OPTIONS_INIT { sizeof(ray_group_options), RAY_BYTES_INIT, RAY_STR_INIT, RAY_STR_INIT, 0, 0 }
/* Asks for a group and returns when the node knows it; its resources may come later. RAY_ALREADY_EXISTS: the name. */
RAY_API ray_code ray_group_create(ray_runtime *runtime, const ray_group_options *options, ray_id *out, ray_error **err);
/* Waits until its resources are reserved. RAY_TIMED_OUT; RAY_NOT_FOUND = there is no such group, or it was removed. */
RAY_API ray_code ray_group_wait(ray_runtime *runtime, const ray_id *group, int64_t timeout_ns, ray_error **err);
/* Kills what runs in the group; what waits to run in it fails with RAY_GROUP_REMOVED. RAY_NOT_FOUND. */
RAY_API ray_code ray_group_remove(ray_runtime *runtime, const ray_id *group, ray_error **err);

/* what: "nodes", "resources", "available", "actors", "tasks", "objects", "workers", "running", "jobs", "functions", "errors",
 * "store", "groups", "journal" (lineage sent to the control store by this node: records, bytes, batches); and of this
 * process alone: "process" (how many functions, actors, shapes and tasks it remembers), "references" (held by whom, sizes),
 * "unread" (errors of tasks whose last reference went unseen; taken, the last 1 000; the log tells of each as
 * "unread-error"), "neglected" (those too, unseen for 5 s), "store_usage" (capacity, used; waiting: requests without room).
 * The answer is one MessagePack value: an array of maps; a map of numbers for resources, journal, process, store_usage.
 * filter: MessagePack map of column -> value, and "limit"; empty = all (at most 10 000 rows). */
RAY_API ray_code ray_cluster_query(ray_runtime *runtime, ray_str what, ray_bytes filter_msgpack, ray_buffer *out,
                                   ray_error **err);

#define RAY_KV_ANY UINT64_MAX
/* Linearizable per key; journaled. Versions of a key only grow, also over a delete; 0 = the key does not exist. */
RAY_API ray_code ray_kv_get(ray_runtime *runtime, ray_str ns, ray_bytes key, ray_buffer *out, uint64_t *out_version,
                            ray_error **err);
/* Stores if the key's version is `expected` (RAY_KV_ANY = whatever it is); else RAY_CONFLICT. */
RAY_API ray_code ray_kv_put(ray_runtime *runtime, ray_str ns, ray_bytes key, ray_bytes value, uint64_t expected,
                            uint64_t *out_version, ray_error **err);
RAY_API ray_code ray_kv_delete(ray_runtime *runtime, ray_str ns, ray_bytes key, uint64_t expected, ray_error **err);
/* MessagePack array of the keys (bin) that start with prefix. */
RAY_API ray_code ray_kv_list(ray_runtime *runtime, ray_str ns, ray_bytes prefix, ray_buffer *out, ray_error **err);

/* ---- 12. Being a worker ------------------------------------------------------------------------------------------------ */

/* A native program is its own worker: it registers its functions, calls ray_init, and if ray_runtime_mode says
 * RAY_MODE_WORKER, returns ray_worker_run(...) from main: libray starts it again for that (ray_runtime_options.worker_argv
 * says with what arguments). Bindings pull tasks themselves with ray_worker_next. */
typedef struct ray_task ray_task; /* one execution, until ray_task_finish */
typedef ray_code (*ray_task_fn)(ray_task *task, void *user);

/* Registers a function under a name, process-wide and for good, so `user` needs no destructor. RAY_WRONG_STATE once a
 * ray_init has succeeded: workers run the program up to there and would not know it. (Shared libraries register when they
 * are loaded, see ray_define_library.) fn returns RAY_OK after ray_task_return, or another code after ray_task_fail:
 * RAY_TASK_FAILED, or that of a call that failed; codes below 100 but RAY_CANCELLED and RAY_OUT_OF_MEMORY are reported as
 * RAY_TASK_FAILED. RAY_OK after ray_task_fail is a failure too. fn does not call ray_task_finish. An exception that leaves
 * fn ends the worker (RAY_WORKER_CRASHED): C++ catches its own. RAY_ALREADY_EXISTS: the name; classes share the names. */
RAY_API ray_code ray_register_function(ray_str name, ray_task_fn fn, void *user, ray_error **err);
/* Registers an actor class: create runs as a task, calls ray_task_set_self and returns nothing; methods are registered one
 * by one, after their class (before it: RAY_NOT_FOUND). destroy (may be NULL) runs when the last handle has gone or the
 * actor ends by its own will; not when it is killed, nor at the end of the job, which kills. */
RAY_API ray_code ray_register_actor(ray_str klass, ray_task_fn create, void (*destroy)(void *self, void *user),
                                    void *user, ray_error **err);
RAY_API ray_code ray_register_method(ray_str klass, ray_str method, ray_task_fn fn, void *user, ray_error **err);

/* Pull loop over registered functions, one at a time on the calling thread, until the node ends this worker: RAY_OK, and
 * main is to return; there is nothing to shut down. RAY_WRONG_STATE in a driver, and in a task. */
RAY_API ray_code ray_worker_run(ray_runtime *runtime, ray_error **err);
/* Takes one task. RAY_TIMED_OUT = none came; RAY_CANCELLED = this worker is to end. With timeout 0 it costs one load per
 * connected client, and waits for no disk: a call with arguments that lie there comes when another thread has read them.
 * In an actor with max_concurrency > 1 it may be called before earlier tasks are finished. */
RAY_API ray_code ray_worker_next(ray_runtime *runtime, int64_t timeout_ns, ray_task **out, ray_error **err);
/* Readable when ray_worker_next(runtime, 0, ...) may return a task. Poll it, never read it. Asking for it makes this
 * worker signal the descriptor from then on. -1 for a bad handle. */
RAY_API int ray_worker_fd(ray_runtime *runtime);
/* Concurrency groups of the actor that this worker is, set once, in its constructor: calls of group i
 * (ray_task_options.group) come out of ray_worker_next_in(i) alone, at most limits[i] of them unfinished at a time, so
 * that a group that is busy stops no other. Group 0 is the default and takes calls of unknown groups. */
RAY_API ray_code ray_worker_set_groups(ray_runtime *runtime, const uint32_t *limits, size_t n_groups, ray_error **err);
RAY_API ray_code ray_worker_next_in(ray_runtime *runtime, uint32_t group, int64_t timeout_ns, ray_task **out,
                                    ray_error **err);
/* ray_worker_fd of one group. */
RAY_API int ray_worker_group_fd(ray_runtime *runtime, uint32_t group);
/* For a loop that waits for the descriptor of a group among others, before it sleeps: looks for as long as a task is
 * likely to come soon, at most timeout_ns (< 0: no limit of the caller's), without sleeping. RAY_OK = take it now.
 * RAY_TIMED_OUT = nothing came; from now on the descriptor announces tasks. Until then, and with timeout 0, the
 * descriptor may be silent: whoever calls this once calls it each time before it sleeps. It is worth it: a task that
 * comes while the loop is awake costs neither side a system call. `wake_fd` (or -1): the look ends when this becomes
 * readable, which may be an epoll descriptor. One thread. */
RAY_API ray_code ray_worker_poll(ray_runtime *runtime, uint32_t group, int64_t timeout_ns, int wake_fd);
/* The actor that this worker is ends by its own will; `why` is for people. Calls that run go on; no further one starts
 * (they fail with RAY_ACTOR_DIED); ray_worker_next returns RAY_CANCELLED. Called again when nothing runs any more, the
 * time that the node allows for what is done at the end begins. RAY_WRONG_STATE outside of an actor. */
RAY_API ray_code ray_worker_exit(ray_runtime *runtime, ray_str why, ray_error **err);
/* All generators of the actor that this worker is have together at most `items` items that nobody took, besides the window
 * of each; of one that has ended nothing counts. Set in the constructor: RAY_WRONG_STATE elsewhere. */
RAY_API ray_code ray_worker_limit_streams(ray_runtime *runtime, uint32_t items, ray_error **err);
/* A weak handle of the actor that this worker is. RAY_WRONG_STATE outside of an actor. */
RAY_API ray_code ray_worker_actor(ray_runtime *runtime, ray_actor **out, ray_error **err);
/* [any thread] The task whose context (ids, children) this thread's calls belong to from now on; NULL = none. For
 * bindings that run several tasks in turn on one thread. */
RAY_API ray_code ray_worker_enter(ray_runtime *runtime, ray_task *task, ray_error **err);
/* Makes ray_worker_next return RAY_CANCELLED, and ray_worker_run RAY_OK (no destroy is called). Async-signal-safe. */
RAY_API void ray_worker_stop(ray_runtime *runtime);
/* Called on a runtime thread when a task that this process runs is cancelled, or its worker is asked to end
 * (task NULL): bindings interrupt their interpreter here. The list of running tasks is locked meanwhile, so that the task
 * does not end: of this section only ray_task_is_cancelled, ray_task_get_info and ray_task_runtime may be called; `function`
 * is empty there when this process knows the key alone, for nobody is asked. When ray_worker_on_interrupt returns, the hook
 * before is not running and will not be called again. */
typedef void (*ray_interrupt_fn)(ray_task *task, void *user);
RAY_API ray_code ray_worker_on_interrupt(ray_runtime *runtime, ray_interrupt_fn fn, void *user, ray_error **err);

enum { RAY_KIND_TASK = 0, RAY_KIND_ACTOR_CREATE = 1, RAY_KIND_ACTOR_CALL = 2 };
typedef struct ray_task_info {
  size_t struct_size;
  ray_id id, parent, job, actor;
  ray_str function;     /* name of the function or class */
  ray_str method;       /* actor calls */
  ray_str name;         /* options.name, or the function's */
  uint64_t function_key; /* same key = same definition: use it to cache */
  uint32_t kind;        /* RAY_KIND_* */
  uint32_t attempt;     /* 1 = first execution */
  uint32_t num_returns;
  bool is_stream;
  bool has_gpus;        /* a task or a constructor that GPUs or other accelerators were assigned to */
  int32_t caller_language;  /* RAY_LANG_* of the process that submitted it: what it can read */
  uint32_t max_concurrency; /* of a constructor: as ray_actor_options says, at least 1; else 0 */
} ray_task_info;
#define RAY_TASK_INFO_INIT \
  { sizeof(ray_task_info), RAY_ID_INIT, RAY_ID_INIT, RAY_ID_INIT, RAY_ID_INIT, RAY_STR_INIT, RAY_STR_INIT, RAY_STR_INIT, \
    0, 0, 0, 0, false, false, 0, 0 }
/* The runtime that the task came from; NULL for a bad handle. Borrowed: valid until the task is finished, and not to be
 * released. */
RAY_API ray_runtime *ray_task_runtime(const ray_task *task);
/* [task thread] All views are borrowed from the task. */
RAY_API ray_code ray_task_get_info(const ray_task *task, ray_task_info *out);
/* [task thread] The GPUs assigned to the task, or to the actor that it belongs to: numbers from 0 below the node's number of
 * GPUs ("GPU" in the node's resources). Nobody else has one of them meanwhile, unless each asked for a fraction of it.
 * Writes up to `capacity` of them to ids, which may be NULL for 0; returns how many there are. */
RAY_API size_t ray_task_gpus(const ray_task *task, uint32_t *ids, size_t capacity);
/* [task thread] The same for any resource whose units the node tells apart: "GPU", "TPU", "neuron_cores", "NPU", "HPU",
 * "RBLN", "FURIOSA". 0 for others. */
RAY_API size_t ray_task_accelerators(const ray_task *task, ray_str resource, uint32_t *ids, size_t capacity);
/* [task thread] The arguments, in place, borrowed until ray_task_finish; returns their number. To keep one longer, take
 * it with ray_task_take_arg. */
RAY_API size_t ray_task_args(ray_task *task, const ray_buffer **out);
/* [task thread] Moves argument i into out, to be released by the caller, also after the task's end. */
RAY_API ray_code ray_task_take_arg(ray_task *task, size_t index, ray_buffer *out, ray_error **err);
/* [task thread] The bytes given to ray_function_define; may ask the node once per function_key. */
RAY_API ray_code ray_task_definition(ray_task *task, ray_buffer *out, ray_error **err);
/* [task thread] Result `index`. May be called once per index; results not given are nil. Of a task with num_returns 0
 * everything is accepted and dropped: a function need not know what its caller wants. */
RAY_API ray_code ray_task_return(ray_task *task, uint32_t index, const ray_value *value, ray_error **err);
/* [task thread] Result `index` is an error of its own: its get fails, while the other results have their values. */
RAY_API ray_code ray_task_return_error(ray_task *task, uint32_t index, ray_code code, ray_str message,
                                       const ray_value *payload, ray_error **err);
/* [task thread] Result straight in shared memory; ray_writer_seal(writer, NULL, err) commits it. */
RAY_API ray_code ray_task_return_open(ray_task *task, uint32_t index, const ray_value *shape, ray_writer **out,
                                      ray_layout *layout, ray_error **err);
/* [task thread] The next item of a generator. Waits while the window is full, at most timeout_ns (a large item then waits
 * for room like ray_put). RAY_CANCELLED = nobody wants more. */
RAY_API ray_code ray_task_yield(ray_task *task, const ray_value *value, int64_t timeout_ns, ray_error **err);
/* [task thread] Waits until the window has room for one more item: call it before making the next one, so that no more
 * than `window` unconsumed items exist. RAY_CANCELLED = nobody wants more. */
RAY_API ray_code ray_task_await_room(ray_task *task, int64_t timeout_ns, ray_error **err);
/* [task thread] A failure that ray_task_finish reports now is final: RAY_TASK_RETRY_ON_ERROR does not try it again. */
RAY_API ray_code ray_task_no_retry(ray_task *task);
/* Any thread, one relaxed load: call it in loops. */
RAY_API bool ray_task_is_cancelled(const ray_task *task);
/* [task thread] State of a native actor. */
RAY_API void *ray_task_self(const ray_task *task);
RAY_API ray_code ray_task_set_self(ray_task *task, void *self, ray_error **err);
/* [task thread] The task fails with this, whatever it returns or finishes with; payload may be NULL, else bytes alone. */
RAY_API ray_code ray_task_fail(ray_task *task, ray_str message, const ray_value *payload);
/* [task thread] Ends and consumes a task of ray_worker_next: RAY_OK, or RAY_TASK_FAILED / RAY_CANCELLED; for an actor
 * RAY_ACTOR_DIED ends
 * the actor after this call, which returns normally, or fails with RAY_ACTOR_DIED if ray_task_fail was called.
 * RAY_WORKER_CRASHED says that this process is of no more use: the task is tried again elsewhere as after a crash, and
 * the caller ends the process. RAY_WRONG_STATE in a registered function, which returns its code instead. */
RAY_API ray_code ray_task_finish(ray_task *task, ray_code code);

/* ---- 13. Dynamic C calls ------------------------------------------------------------------------------------------------ */

/* Makes every function that a shared library registers in `void ray_module_init(void)` known to native workers: they load
 * `path` when a task first needs `name`. */
RAY_API ray_code ray_define_library(ray_runtime *runtime, ray_str name, ray_str path, ray_function **out,
                                    ray_error **err);
/* Makes any C symbol a task, called through libffi. library: path or soname, empty = the C library. signature:
 * "f64(f64,f64)"; types: void bool i8 u8 i16 u16 i32 u32 i64 u64 f32 f64 str bytes ptr_len. `bytes` passes a pointer,
 * `ptr_len` a pointer and a size_t, both also of RAY_FMT_RAW; str is nul-terminated. All else is MessagePack; numbers are
 * range checked, and the error names the argument. RAY_INVALID_ARGUMENT points at the place in a bad signature. */
RAY_API ray_code ray_define_symbol(ray_runtime *runtime, ray_str name, ray_str library, ray_str symbol,
                                   ray_str signature, ray_function **out, ray_error **err);

/* ---- 14. Testing: only with RAY_ALLOW_UNSTABLE; may change in any release -------------------------------------------------- */
#ifdef RAY_ALLOW_UNSTABLE
/* Arms a fault point in this process: action "kill", "stop", "delay:5ms" or "fail", "@N" = only at the N-th passage;
 * empty disarms. Child processes read LIBRAY_FAULTS="point=action;..." from the environment. */
RAY_API ray_code ray_test_fault(ray_str point, ray_str action, ray_error **err);
/* Local reference count of this process, and whether the object is known here. */
RAY_API ray_code ray_test_ref_count(ray_ref *ref, uint64_t *out, ray_error **err);
#endif

#ifdef __cplusplus
}
#endif
#endif
