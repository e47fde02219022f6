// Operations of a control-store shard: numbers, arguments, answers; and helpers that build them.
//
// Who calls it: the node daemon (through gcs/client.h), tools, tests. Arguments and answers are
// MessagePack arrays, written below as [arguments] -> [answer]; ids are bin of 24 bytes (nil = none).
// Answers carry ids as bin, except rows of kQuery and kActorInfo, which are maps for people (hex
// strings). A failure has a ray_code and a text; where said, it has an answer too.
//
// Which shard: `shard_of_slot(slot)` with the slot written behind each operation:
//   id(x) = gcs_slot(x), key(k) = gcs_slot_of_key(k), any = broadcast or whichever (said there).
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "gcs/client.h"

namespace ray::gcs {

enum GcsOp : uint32_t {
  kPing = 1,   // [] -> [shard index, last sn]                                                        any
  kStats = 2,  // [] -> [map]: last_sn, materialised_sn, ram_bytes, rows, journal_bytes, segments,
               //   lineage_records, lineage_bytes, refusing, clients, subscribers...               each
  kHello = 3,  // [node, epoch] -> [committed lsn of that journal]                                   each
  kAppend = 4, // [node, epoch, lsn_from, n, codec, raw_size, blob] -> [committed lsn]; see client.h
  kPoll = 5,   // [since_sn, [[table, prefix]...]] -> [sn, snapshot, [[sn, table, key, value]...]]:
               //   waits for a change after since_sn; snapshot true = keys not listed are gone
  kQuery = 6,  // [what, filter map] -> [row map...]; what: tasks objects actors nodes jobs functions
               //   errors events kv; filter: column -> value, "limit" (10 000), "fresh_ms" (2000: how
               //   long tasks, objects, errors and events may wait for the materialiser)            each

  kFunctionDefine = 10,  // [key, language, kind, name, definition] -> []; RAY_CONFLICT when the key has
                         //   another definition. Up to 100 MB                         key(8 bytes of it)
  kFunctionGet = 11,     // [key] -> [language, kind, name, definition]; RAY_NOT_FOUND        the same
  kFunctionForget = 12,  // [key] -> []: its definition is not needed any more                the same

  kKvGet = 20,     // [ns, key] -> [version, value]; RAY_NOT_FOUND                          key(ns\0key)
  kKvPut = 21,     // [ns, key, value, expected] -> [version]; RAY_CONFLICT -> [version]. 0 = no such key; a
                   //   key that was deleted and is there again has a higher version than ever  the same
  kKvDelete = 22,  // [ns, key, expected] -> []; RAY_NOT_FOUND, RAY_CONFLICT -> [version]      the same
  kKvList = 23,    // [ns, prefix] -> [[key...]]                                                    each

  kActorRegister = 30,  // [actor, map of columns] -> []; the same actor again is fine          id(actor)
  kActorUpdate = 31,    // [actor, incarnation, map of columns] -> [ns, name]: a lower incarnation gets
                        //   RAY_CONFLICT "superseded" -> [incarnation]; so does a dead actor   id(actor)
  kActorInfo = 32,      // [actor] -> [map]; RAY_NOT_FOUND                                      id(actor)
  kNameClaim = 33,      // [ns, name, actor] -> [actor]; RAY_ALREADY_EXISTS -> [who]      key(ns\0name)
  kNameRelease = 34,    // [ns, name, actor] -> []: if it is still that actor's                the same
  kActorFind = 35,      // [ns, name] -> [actor]; RAY_NOT_FOUND                                the same
  kActorLogAppend = 36, // [actor, incarnation, position, determinant] -> [end]: accepted if position is
                        //   the end, or holds the same bytes; else RAY_CONFLICT -> [end]; a lower
                        //   incarnation: RAY_CONFLICT "superseded" -> [end]                    id(actor)
  kActorLogRead = 37,   // [actor, from, limit <= 1000] -> [end, [determinant...]]              id(actor)
  kActorLogTrim = 38,   // [actor, incarnation, below] -> [end]: positions below are not needed any more

  kNodePut = 40,   // [node, map of columns] -> []: merged into the row; a row whose state is DEAD or FINISHED
                   //   keeps what it has, and is given only what it has not                 any (all)
  kJobPut = 41,    // [job, map of columns] -> []: the same                                  any (all)
  kEventAdd = 42,  // [map] -> []                                                                   any
  kErrorAdd = 43,  // [map] -> []                                                                   any

  kObjectPut = 50,  // [object, size, node, seq, add] -> []: a location appears (add true) or goes. seq: the
                    //   node's own number of this change, rising for each object; a lower one that comes
                    //   later changes nothing                                                   id(object)
  kObjectGet = 51,  // [object] -> [size, producer, [node...]]; RAY_NOT_FOUND                  id(object)
  kTaskPut = 52,    // [task, incarnation, execution, events, node, record] -> [0]: versions only rise;
                    //   lower: RAY_CONFLICT "superseded" -> [1, incarnation, execution, events];
                    //   equal with other bytes: RAY_CONFLICT "conflict" -> [2, ...]             id(task)
  kTaskGet = 53,    // [task] -> [incarnation, execution, events, node, record]                 id(task)
};

// Tables of the state machine; kPoll and Client::subscribe name them.
enum class Table : uint8_t {
  kFunctions = 1, kDefinitions, kActors, kNames, kActorLogs, kActorEnds, kNodes, kJobs, kEvents,
  kErrors, kKv, kObjects, kTasks, kCount
};
// "functions", "definitions", "actors", "names", "actor_logs", "actor_ends", "nodes", "jobs", "events",
// "errors", "kv", "objects", "task_records".
const char* table_name(Table t);
bool table_of(std::string_view name, Table* out);

// Keys of the tables, as kPoll delivers them. Ids: their 24 bytes. kv: ns, a nul, the key; its value is
// delivered as MessagePack [version, bin]. Names: ns, a nul, the name -> id.
std::string kv_key(std::string_view ns, std::string_view key);
// Slots of what is not named by an id.
uint32_t slot_of_function(uint64_t key);
uint32_t slot_of_kv(std::string_view ns, std::string_view key);

inline constexpr size_t kMaxFrame = 160u << 20;       // a definition of 100 MB fits
inline constexpr size_t kMaxKey = 64u << 10;
inline constexpr uint32_t kMaxQueryRows = 10000;
inline constexpr uint32_t kMaxLogRead = 1000;

// ---- helpers over several shards -----------------------------------------------------------------------
// What is known of an actor when it is created. metadata and the like travel as columns.
struct ActorSpec {
  ActorId actor;
  std::string name, ns, class_name, metadata;
  uint64_t function = 0;
  JobId job;
  NodeId node;
  int32_t language = 0, max_restarts = 0, lifetime = 0;
};
// At the name's shard. RAY_ALREADY_EXISTS: the answer is [id of the actor that has the name]. To release
// what another has is nothing. Who claims releases, and waits for one answer before it asks the next:
// requests that are sent again after a restart keep no order.
void claim_name(Client* client, const std::string& ns, const std::string& name, const ActorId& actor,
                Client::Answered done);
void release_name(Client* client, const std::string& ns, const std::string& name, const ActorId& actor,
                  Client::Answered done);
// Writes the actor's row, once; its name has been claimed before.
void register_actor(Client* client, const ActorSpec& spec, Client::Answered done);
struct ActorChange {
  ActorId actor;
  uint32_t incarnation = 0;
  const char* state = "";  // "PENDING" "ALIVE" "RESTARTING" "DEAD"
  NodeId node;
  uint32_t pid = 0, worker = 0;
  int32_t code = 0;
  std::string cause;
};
// Writes the change into the row. RAY_CONFLICT: the row has a later incarnation, or its actor is dead.
void update_actor(Client* client, const ActorChange& change, Client::Answered done);
// Asks every shard and joins the rows (or keys) into one MessagePack array.
void query_all(Client* client, std::string_view what, std::string_view filter, Client::Answered done);
void kv_list_all(Client* client, std::string_view ns, std::string_view prefix, Client::Answered done);

}  // namespace ray::gcs
