// The state machine alone: operations, deduplication, rollback, recovery, eviction, polls.
#include <gtest/gtest.h>

#include <random>

#include "libray/wire/cursor.h"
#include "gcs/tables.h"
#include "tests/gcs/shard_process.h"

namespace ray::gcs {
namespace {

using test::node_of;

// A driver without disk: commits every step and keeps the journal.
struct Machine {
  Tables t;
  std::vector<std::pair<uint64_t, std::string>> journal;
  uint64_t seq = 0;

  Outcome run(uint32_t op, const std::string& args, uint64_t client = 0, uint64_t number = 0,
              uint64_t ack = 0, bool commit = true) {
    Outcome out = t.step({client, number, ack, op, args}, 1000);
    if (out.sn) journal.emplace_back(out.sn, out.record);
    if (commit) t.commit();
    return out;
  }
  Outcome put(const std::string& key, const std::string& value, uint64_t expected = UINT64_MAX,
              bool commit = true) {
    std::string args;
    wire::Writer(&args).array(4).str("ns").bin(key).bin(value).uint64(expected);
    return run(kKvPut, args, 0, 0, 0, commit);
  }
  Outcome get(const std::string& key) {
    std::string args;
    wire::Writer(&args).array(2).str("ns").bin(key);
    return run(kKvGet, args);
  }
  std::string value(const std::string& key) {
    Outcome out = get(key);
    if (out.code != RAY_OK) return "<" + std::to_string(out.code) + ">";
    wire::Cursor r(out.answer);
    r.array();
    r.uint64();
    return std::string(r.bytes());
  }
};

uint64_t first(const Outcome& o) {
  wire::Cursor r(o.answer);
  r.array();
  return r.uint64();
}
std::string claim(const std::string& name, const Id& actor) {
  std::string args;
  wire::Writer(&args).array(3).str("ns").str(name).id(actor);
  return args;
}
std::string actor_columns(const Id& actor, const std::string& name) {
  std::string args;
  wire::Writer(&args).array(2).id(actor).map(2).str("name").str(name).str("ns").str("ns");
  return args;
}
std::string actor_state(const Id& actor, uint64_t incarnation, const std::string& state) {
  std::string args;
  wire::Writer(&args).array(3).id(actor).uint64(incarnation).map(1).str("state").str(state);
  return args;
}

TEST(Tables, KeyValueCompareAndSwap) {
  Machine m;
  EXPECT_EQ(m.get("k").code, RAY_NOT_FOUND);
  EXPECT_EQ(first(m.put("k", "a", 0)), 1u);
  EXPECT_EQ(first(m.put("k", "b")), 2u);
  Outcome lost = m.put("k", "c", 1);
  EXPECT_EQ(lost.code, RAY_CONFLICT);
  EXPECT_EQ(first(lost), 2u);
  EXPECT_EQ(lost.sn, 0u);
  EXPECT_EQ(m.value("k"), "b");
  std::string args;
  wire::Writer(&args).array(3).str("ns").bin("k").uint64(1);
  EXPECT_EQ(m.run(kKvDelete, args).code, RAY_CONFLICT);
  args.clear();
  wire::Writer(&args).array(3).str("ns").bin("k").uint64(2);
  EXPECT_EQ(m.run(kKvDelete, args).code, RAY_OK);
  EXPECT_EQ(m.get("k").code, RAY_NOT_FOUND);
  EXPECT_EQ(m.run(kKvDelete, args).code, RAY_NOT_FOUND);
  EXPECT_EQ(first(m.put("k", "d", 0)), 3u);  // never a version that it had
}

TEST(Tables, VersionsGrowOverDeletions) {
  Machine m;
  auto remove = [&](const std::string& key, bool commit = true) {
    std::string args;
    wire::Writer(&args).array(3).str("ns").bin(key).uint64(UINT64_MAX);
    EXPECT_EQ(m.run(kKvDelete, args, 0, 0, 0, commit).code, RAY_OK);
  };
  EXPECT_EQ(first(m.put("k", "a")), 1u);
  remove("k");
  EXPECT_EQ(first(m.put("k", "b", 0)), 2u);
  EXPECT_EQ(m.put("k", "c", 1).code, RAY_CONFLICT);  // who saw "a" does not overwrite "b"
  for (int i = 0; i < 5; ++i) m.put("k", "d");
  remove("k", false);
  EXPECT_EQ(first(m.put("k", "e", 0, false)), 8u);
  m.t.rollback();
  EXPECT_EQ(first(m.put("k", "f")), 8u);
  remove("k");
  // Again after the tables were made anew of the journal.
  Machine again;
  for (auto& [sn, record] : m.journal)
    if (sn <= m.t.last_sn()) {
      again.t.recover(sn, record);
    }
  EXPECT_GT(first(again.put("k", "g", 0)), 8u);
}

TEST(Tables, WhatHasEndedStaysSo) {
  Machine m;
  auto put = [&](GcsOp op, const char* state, const char* more) {
    std::string args;
    wire::Writer(&args).array(2).id(node_of(4)).map(2).str("state").str(state).str(more).uint64(1);
    EXPECT_EQ(m.run(op, args).code, RAY_OK);
  };
  auto row = [&](const char* what) {
    std::string args;
    wire::Writer(&args).array(2).str(what).nil();
    return m.run(kQuery, args).answer;
  };
  put(kNodePut, "DEAD", "first");
  put(kNodePut, "ALIVE", "late");
  EXPECT_NE(row("nodes").find("DEAD"), std::string::npos);
  EXPECT_EQ(row("nodes").find("ALIVE"), std::string::npos);
  EXPECT_NE(row("nodes").find("late"), std::string::npos);  // what the row did not have is welcome
  put(kJobPut, "FINISHED", "first");
  put(kJobPut, "RUNNING", "late");
  EXPECT_EQ(row("jobs").find("RUNNING"), std::string::npos);
}

TEST(Tables, LocationsOfAnObjectHaveAnOrder) {
  auto put = [](Machine& m, uint8_t node, uint64_t seq, bool add) {
    std::string args;
    wire::Writer(&args).array(5).id(return_object(node_of(7), 0)).uint64(99).id(node_of(node)).uint64(seq).boolean(add);
    EXPECT_EQ(m.run(kObjectPut, args).code, RAY_OK);
  };
  auto nodes = [](Machine& m) {
    std::string args;
    wire::Writer(&args).array(1).id(return_object(node_of(7), 0));
    Outcome out = m.run(kObjectGet, args);
    wire::Cursor r(out.answer);
    r.array_of(3);
    EXPECT_EQ(r.uint64(), 99u);
    r.id();
    std::vector<std::string> all;
    for (size_t n = r.array(); n > 0; --n) all.emplace_back(r.bytes().substr(0, 1));
    EXPECT_TRUE(r.done());
    return all.size();
  };
  Machine m;
  put(m, 1, 1, true);
  put(m, 2, 1, true);
  EXPECT_EQ(nodes(m), 2u);
  put(m, 1, 3, false);
  put(m, 1, 2, true);  // was told before, comes after
  EXPECT_EQ(nodes(m), 1u);
  put(m, 1, 4, true);
  EXPECT_EQ(nodes(m), 2u);
}

TEST(Tables, KeyValueListIsByPrefixAndNamespace) {
  Machine m;
  for (const char* k : {"a", "ab", "abc", "b", "a\xff\xff"}) m.put(k, "v");
  std::string other;
  wire::Writer(&other).array(4).str("other").bin("abx").bin("v").uint64(UINT64_MAX);
  m.run(kKvPut, other);
  std::string args;
  wire::Writer(&args).array(2).str("ns").bin("ab");
  Outcome out = m.run(kKvList, args);
  wire::Cursor r(out.answer);
  r.array_of(1);
  ASSERT_EQ(r.array(), 2u);
  EXPECT_EQ(r.bytes(), "ab");
  EXPECT_EQ(r.bytes(), "abc");
  std::string bad;
  wire::Writer(&bad).array(2).str(std::string_view("n\0s", 3)).bin("");
  EXPECT_EQ(m.run(kKvList, bad).code, RAY_INVALID_ARGUMENT);
}

TEST(Tables, ARepeatedRequestGetsTheFirstAnswer) {
  Machine m;
  std::string args;
  wire::Writer(&args).array(4).str("ns").bin("k").bin("v").uint64(UINT64_MAX);
  Outcome one = m.run(kKvPut, args, 7, 1, 1);
  Outcome again = m.run(kKvPut, args, 7, 1, 1);
  EXPECT_EQ(again.sn, 0u);
  EXPECT_EQ(again.answer, one.answer);
  EXPECT_EQ(first(m.run(kKvPut, args, 7, 2, 1)), 2u);
  EXPECT_EQ(first(m.run(kKvPut, args, 8, 1, 1)), 3u);  // another client
  // Acknowledged: its answer is forgotten, and a late copy does nothing.
  EXPECT_EQ(first(m.run(kKvPut, args, 7, 3, 3)), 4u);
  Outcome late = m.run(kKvPut, args, 7, 1, 1);
  EXPECT_EQ(late.code, RAY_INVALID_ARGUMENT);
  EXPECT_EQ(late.sn, 0u);
}

TEST(Tables, DeduplicationIsBounded) {
  Machine m;
  std::string args;
  wire::Writer(&args).array(4).str("ns").bin("k").bin("v").uint64(UINT64_MAX);
  for (uint64_t c = 1; c <= Tables::kMaxClients + 100; ++c) m.run(kKvPut, args, c, 1, 1);
  EXPECT_LE(m.t.clients(), Tables::kMaxClients);
}

TEST(Tables, RollbackLeavesNothing) {
  Machine m;
  m.put("k", "old");
  m.put("gone", "x");
  uint64_t sn = m.t.last_sn(), bytes = m.t.ram_bytes();
  m.put("k", "new", UINT64_MAX, false);
  m.put("fresh", "y", UINT64_MAX, false);
  std::string del;
  wire::Writer(&del).array(3).str("ns").bin("gone").uint64(UINT64_MAX);
  std::string args;
  wire::Writer(&args).array(4).str("ns").bin("d").bin("v").uint64(UINT64_MAX);
  m.run(kKvDelete, del, 0, 0, 0, false);
  m.run(kKvPut, args, 5, 9, 1, false);
  LineageOutcome l = m.t.append(node_of(1), 1, 1, 10);
  EXPECT_EQ(l.kind, LineageOutcome::kAccepted);
  m.t.rollback();
  EXPECT_EQ(m.t.last_sn(), sn);
  EXPECT_EQ(m.t.ram_bytes(), bytes);
  EXPECT_EQ(m.value("k"), "old");
  EXPECT_EQ(m.value("gone"), "x");
  EXPECT_EQ(m.value("fresh"), "<" + std::to_string(RAY_NOT_FOUND) + ">");
  EXPECT_EQ(m.t.committed_lsn(node_of(1), 1), 0u);
  EXPECT_EQ(m.run(kKvPut, args, 5, 9, 1).sn, sn + 1);  // not taken for a repetition
}

TEST(Tables, RefusedWritesChangeNothingAndReadsGoOn) {
  Machine m;
  m.put("k", "v");
  m.t.refuse_writes("disk full");
  Outcome out = m.put("k", "w");
  EXPECT_EQ(out.code, RAY_UNAVAILABLE);
  EXPECT_EQ(out.text, "disk full");
  EXPECT_EQ(m.value("k"), "v");
  m.t.refuse_writes("");
  EXPECT_EQ(first(m.put("k", "w")), 2u);
}

TEST(Tables, LineageIsAcceptedOnceAndInOrder) {
  Tables t;
  NodeId n = node_of(1);
  EXPECT_EQ(t.append(n, 1, 1, 10).kind, LineageOutcome::kAccepted);
  EXPECT_EQ(t.append(n, 1, 1, 10).kind, LineageOutcome::kDuplicate);
  EXPECT_EQ(t.append(n, 1, 21, 5).kind, LineageOutcome::kGap);
  EXPECT_EQ(t.append(n, 1, 5, 10).kind, LineageOutcome::kOverlap);
  EXPECT_EQ(t.append(n, 1, 11, 10).committed, 20u);
  EXPECT_EQ(t.append(n, 2, 1, 3).kind, LineageOutcome::kAccepted);
  EXPECT_EQ(t.append(n, 1, 21, 1).kind, LineageOutcome::kFenced);
  EXPECT_EQ(t.committed_lsn(n, 2), 3u);
  EXPECT_EQ(t.append(node_of(2), 1, 1, 1).kind, LineageOutcome::kAccepted);
}

TEST(Tables, NamesAreTakenOnce) {
  Machine m;
  EXPECT_EQ(m.run(kNameClaim, claim("a", node_of(1))).code, RAY_OK);
  EXPECT_EQ(m.run(kNameClaim, claim("a", node_of(1))).code, RAY_OK);
  Outcome taken = m.run(kNameClaim, claim("a", node_of(2)));
  EXPECT_EQ(taken.code, RAY_ALREADY_EXISTS);
  wire::Cursor r(taken.answer);
  r.array_of(1);
  EXPECT_EQ(r.id(), node_of(1));
  m.run(kNameRelease, claim("a", node_of(2)));  // not its name
  EXPECT_EQ(m.run(kNameClaim, claim("a", node_of(2))).code, RAY_ALREADY_EXISTS);
  m.run(kNameRelease, claim("a", node_of(1)));
  EXPECT_EQ(m.run(kNameClaim, claim("a", node_of(2))).code, RAY_OK);
}

TEST(Tables, ActorsOnlyGoForward) {
  Machine m;
  Id a = node_of(3);
  EXPECT_EQ(m.run(kActorUpdate, actor_state(a, 0, "ALIVE")).code, RAY_NOT_FOUND);
  EXPECT_EQ(m.run(kActorRegister, actor_columns(a, "bob")).code, RAY_OK);
  EXPECT_EQ(m.run(kActorRegister, actor_columns(a, "bob")).sn, 0u);
  EXPECT_EQ(m.run(kActorUpdate, actor_state(a, 2, "ALIVE")).code, RAY_OK);
  Outcome old = m.run(kActorUpdate, actor_state(a, 1, "DEAD"));
  EXPECT_EQ(old.code, RAY_CONFLICT);
  EXPECT_EQ(first(old), 2u);
  Outcome dead = m.run(kActorUpdate, actor_state(a, 2, "DEAD"));
  wire::Cursor r(dead.answer);
  r.array_of(2);
  EXPECT_EQ(r.bytes(), "ns");
  EXPECT_EQ(r.bytes(), "bob");
  EXPECT_EQ(m.run(kActorUpdate, actor_state(a, 3, "ALIVE")).code, RAY_CONFLICT);
}

TEST(Tables, ActorLogsAreDense) {
  Machine m;
  Id a = node_of(4);
  auto append = [&](uint64_t inc, uint64_t pos, const std::string& det) {
    std::string args;
    wire::Writer(&args).array(4).id(a).uint64(inc).uint64(pos).bin(det);
    return m.run(kActorLogAppend, args);
  };
  for (uint64_t p = 0; p < 1500; ++p) EXPECT_EQ(first(append(1, p, "d" + std::to_string(p))), p + 1);
  EXPECT_EQ(append(1, 10, "d10").code, RAY_OK);       // the same again
  EXPECT_EQ(append(1, 10, "other").code, RAY_CONFLICT);
  EXPECT_EQ(append(1, 1501, "x").code, RAY_CONFLICT);  // a gap
  EXPECT_EQ(append(2, 1500, "x").code, RAY_OK);
  Outcome old = append(1, 1501, "y");
  EXPECT_EQ(old.code, RAY_CONFLICT);
  EXPECT_EQ(old.text.substr(0, 10), "superseded");
  std::string args;
  wire::Writer(&args).array(3).id(a).uint64(100).uint64(5000);
  Outcome out = m.run(kActorLogRead, args);
  wire::Cursor r(out.answer);
  r.array_of(2);
  EXPECT_EQ(r.uint64(), 1501u);
  ASSERT_EQ(r.array(), 1000u);
  EXPECT_EQ(r.bytes(), "d100");
  std::string trim;
  wire::Writer(&trim).array(3).id(a).uint64(2).uint64(1200);
  m.run(kActorLogTrim, trim);
  m.run(kActorLogTrim, trim);
  args.clear();
  wire::Writer(&args).array(3).id(a).uint64(0).uint64(1000);
  Outcome rest = m.run(kActorLogRead, args);
  wire::Cursor r2(rest.answer);
  r2.array_of(2);
  EXPECT_EQ(r2.uint64(), 1501u);
  ASSERT_EQ(r2.array(), 301u);
  EXPECT_EQ(r2.bytes(), "d1200");
}

TEST(Tables, TaskRecordsHaveThreeAnswers) {
  Machine m;
  auto put = [&](uint64_t inc, uint64_t exec, uint64_t events, const std::string& record) {
    std::string args;
    wire::Writer(&args).array(6).id(node_of(5)).uint64(inc).uint64(exec).uint64(events).id(node_of(1)).bin(record);
    return m.run(kTaskPut, args);
  };
  EXPECT_EQ(first(put(0, 1, 0, "a")), 0u);
  EXPECT_EQ(first(put(0, 1, 0, "a")), 0u);
  EXPECT_EQ(first(put(0, 1, 0, "b")), 2u);
  EXPECT_EQ(first(put(0, 0, 9, "c")), 1u);
  EXPECT_EQ(first(put(0, 1, 1, "d")), 0u);
  EXPECT_EQ(first(put(1, 0, 0, "e")), 0u);
}

TEST(Tables, FunctionsAreDefinedOnce) {
  Machine m;
  auto define = [&](const std::string& code) {
    std::string args;
    wire::Writer(&args).array(5).uint64(UINT64_MAX - 1).int64(1).int64(1).str("f").bin(code);
    return m.run(kFunctionDefine, args);
  };
  EXPECT_EQ(define("code").code, RAY_OK);
  EXPECT_EQ(define("code").sn, 0u);
  EXPECT_EQ(define("other").code, RAY_CONFLICT);
  std::string args;
  wire::Writer(&args).array(1).uint64(UINT64_MAX - 1);
  Outcome out = m.run(kFunctionGet, args);
  wire::Cursor r(out.answer);
  r.array_of(4);
  EXPECT_EQ(r.int64(), 1);
  EXPECT_EQ(r.int64(), 1);
  EXPECT_EQ(r.bytes(), "f");
  EXPECT_EQ(r.bytes(), "code");
  EXPECT_EQ(m.run(kFunctionForget, args).code, RAY_OK);
  EXPECT_EQ(m.run(kFunctionGet, args).code, RAY_NOT_FOUND);
  EXPECT_EQ(m.run(kFunctionForget, args).code, RAY_OK);
  EXPECT_EQ(define("other").code, RAY_OK);
}

TEST(Tables, QueriesFilterRows) {
  Machine m;
  for (uint8_t k = 1; k <= 9; ++k) {
    std::string args;
    wire::Writer(&args).array(2).id(node_of(k)).map(2).str("state").str(k % 3 ? "ALIVE" : "DEAD").str("n").uint64(k);
    m.run(kNodePut, args);
  }
  auto count = [&](const std::string& filter) {
    std::string args;
    wire::Writer w(&args);
    w.array(2).str("nodes");
    filter.empty() ? w.nil() : w.raw(filter);
    Outcome out = m.run(kQuery, args);
    return out.code == RAY_OK ? static_cast<int>(wire::Cursor(out.answer).array()) : -out.code;
  };
  EXPECT_EQ(count(""), 9);
  std::string dead, limit, both, bad;
  wire::Writer(&dead).map(1).str("state").str("DEAD");
  wire::Writer(&limit).map(1).str("limit").uint64(4);
  wire::Writer(&both).map(2).str("state").str("ALIVE").str("n").int64(5);
  wire::Writer(&bad).uint64(3);
  EXPECT_EQ(count(dead), 3);
  EXPECT_EQ(count(limit), 4);
  EXPECT_EQ(count(both), 1);
  EXPECT_EQ(count(bad), -RAY_INVALID_ARGUMENT);
  // Merged, not replaced.
  std::string args;
  wire::Writer(&args).array(2).id(node_of(5)).map(1).str("state").str("DEAD");
  m.run(kNodePut, args);
  EXPECT_EQ(count(both), 0);
  EXPECT_EQ(count(dead), 4);
}

TEST(Tables, RecoveryGivesTheSameTablesAndAnswers) {
  std::mt19937 random(1);
  Machine m;
  std::vector<std::pair<Request, std::string>> requests;
  std::vector<std::string> answers;
  for (uint64_t k = 1; k <= 500; ++k) {
    std::string args;
    std::string key = "k" + std::to_string(random() % 40);
    if (random() % 4) wire::Writer(&args).array(4).str("ns").bin(key).bin(std::to_string(k)).uint64(UINT64_MAX);
    else wire::Writer(&args).array(3).str("ns").bin(key).uint64(UINT64_MAX);
    uint32_t op = wire::Cursor(args).array() == 4 ? kKvPut : kKvDelete;
    Outcome out = m.run(op, args, 1, k, k > 100 ? k - 100 : 1);
    if (out.sn) {
      requests.emplace_back(Request{1, k, 1, op, {}}, args);
      answers.push_back(out.answer);
    }
  }
  Machine n;
  for (auto& [sn, record] : m.journal) ASSERT_TRUE(n.t.recover(sn, record));
  EXPECT_EQ(n.t.last_sn(), m.t.last_sn());
  for (int k = 0; k < 40; ++k) EXPECT_EQ(n.value("k" + std::to_string(k)), m.value("k" + std::to_string(k)));
  for (size_t k = 0; k < requests.size(); ++k) {
    if (requests[k].first.seq <= 400) continue;
    Request q = requests[k].first;
    q.args = requests[k].second;
    Outcome out = n.t.step(q, 1);
    EXPECT_EQ(out.sn, 0u);
    EXPECT_EQ(out.answer, answers[k]);
  }
}

TEST(Tables, EvictedRowsAreAskedForAndDeletedOnesStayDeleted) {
  Machine m;
  std::string big(1000, 'x');
  for (int k = 0; k < 200; ++k) m.put("k" + std::to_string(k), big + std::to_string(k));
  uint64_t materialised = m.t.last_sn();
  m.put("late", "v");
  EXPECT_GT(m.t.ram_bytes(), 200000u);
  EXPECT_LE(m.t.evict(materialised, 2000, 100000), 2000u);
  EXPECT_EQ(m.value("late"), "v");  // not materialised: still here
  std::string args;
  wire::Writer(&args).array(2).str("ns").bin("k7");
  Outcome out = m.t.step({0, 0, 0, kKvGet, args}, 1);
  ASSERT_EQ(out.kind, Outcome::kNeedRow);
  EXPECT_EQ(out.need.first, kv_key("ns", "k7"));
  m.t.load(Table::kKv, out.need.first, 1, 8, true, "from disk");
  EXPECT_EQ(m.value("k7"), "from disk");
  // A compare-and-swap on an evicted row waits for it too.
  Outcome swap = m.put("k8", "new", 1);
  EXPECT_EQ(swap.kind, Outcome::kNeedRow);
  EXPECT_EQ(swap.sn, 0u);
  m.t.load(Table::kKv, kv_key("ns", "k8"), 1, 9, true, "old");
  EXPECT_EQ(first(m.put("k8", "new", 1)), 2u);
  m.t.load(Table::kKv, kv_key("ns", "k8"), 1, 9, true, "stale");
  EXPECT_EQ(m.value("k8"), "new");
  // Absent on disk.
  m.t.load_absent(Table::kKv, kv_key("ns", "none"));
  EXPECT_EQ(m.get("none").code, RAY_NOT_FOUND);
  std::string del;
  wire::Writer(&del).array(3).str("ns").bin("k8").uint64(UINT64_MAX);
  EXPECT_EQ(m.run(kKvDelete, del).code, RAY_OK);
  m.t.load(Table::kKv, kv_key("ns", "k8"), 1, 9, true, "zombie");
  EXPECT_EQ(m.get("k8").code, RAY_NOT_FOUND);
  // Lists ask for the keys on disk.
  std::string list;
  wire::Writer(&list).array(2).str("ns").bin("k1");
  Outcome need = m.t.step({0, 0, 0, kKvList, list}, 1);
  ASSERT_EQ(need.kind, Outcome::kNeedRange);
  m.t.load(Table::kKv, kv_key("ns", "k1"), 1, 2, false, {});
  Outcome listed = m.t.step({0, 0, 0, kKvList, list}, 1, {need.need});
  ASSERT_EQ(listed.kind, Outcome::kDone);
  wire::Cursor r(listed.answer);
  r.array_of(1);
  EXPECT_EQ(r.array(), 1u);
}

TEST(Tables, PollsSeeCommittedChangesInOrder) {
  Machine m;
  auto poll = [&](uint64_t since, const std::string& prefix) {
    std::string args;
    wire::Writer(&args).array(2).uint64(since).array(1).array(2).str("kv").bin(kv_key("ns", prefix));
    return m.t.step({0, 0, 0, kPoll, args}, 1);
  };
  EXPECT_EQ(poll(0, "a").kind, Outcome::kPark);
  m.put("a1", "x", UINT64_MAX, false);
  EXPECT_EQ(poll(0, "a").kind, Outcome::kPark);  // not committed
  EXPECT_TRUE(m.t.commit());
  m.put("b", "y");
  m.put("a1", "z");
  auto read = [&](const Outcome& out) {
    std::vector<std::string> all;
    wire::Cursor r(out.answer);
    r.array_of(3);
    r.uint64();
    r.boolean();
    for (size_t n = r.array(); n > 0; --n) {
      r.array_of(4);
      uint64_t sn = r.uint64();
      r.bytes();
      std::string key(r.bytes().substr(3));
      wire::Cursor v(r.bytes());
      v.array();
      v.uint64();
      all.push_back(std::to_string(sn) + key + "=" + std::string(v.bytes()));
    }
    EXPECT_TRUE(r.done());
    return all;
  };
  EXPECT_EQ(read(poll(0, "a")), (std::vector<std::string>{"1a1=x", "3a1=z"}));
  EXPECT_EQ(read(poll(1, "a")), (std::vector<std::string>{"3a1=z"}));
  EXPECT_EQ(poll(3, "a").kind, Outcome::kPark);
  // Who lags further than what is kept gets the last value of each key.
  std::string big(100000, 'q');
  for (int k = 0; k < 100; ++k) m.put("c", big + std::to_string(k));
  Outcome out = poll(1, "a");
  wire::Cursor r(out.answer);
  r.array_of(3);
  EXPECT_EQ(r.uint64(), m.t.last_sn());
  EXPECT_TRUE(r.boolean());
  EXPECT_EQ(r.array(), 1u);
}

TEST(Tables, MalformedArgumentsAreRefused) {
  Machine m;
  std::mt19937 random(2);
  for (uint32_t op = 0; op < 60; ++op) {
    if (op == kPoll) continue;
    for (const std::string& args : {std::string(), std::string("\x90"), std::string("\xc0"),
                                    std::string("\xdd\xff\xff\xff\xff"), std::string(1000, '\x91')}) {
      Outcome out = m.run(op, args);
      if (op != kPing) {
        EXPECT_NE(out.code, RAY_OK) << op;
      }
      EXPECT_EQ(out.sn, 0u) << op;
    }
    for (int k = 0; k < 2000; ++k) {
      std::string args(random() % 40, '\0');
      for (char& c : args) c = static_cast<char>(random());
      if (!args.empty()) args[0] = static_cast<char>(0x90 | (random() % 8));
      m.run(op, args);
    }
  }
}

}  // namespace
}  // namespace ray::gcs
