// The journal and the materialiser without processes: what is committed comes back, damage is cut, failures
// leave nothing, rows are exact.
#include "gcs/journal.h"

#include <gtest/gtest.h>
#include <lz4.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "gcs/materialise.h"
#include "gcs/text.h"
#include "libray/base/fault.h"
#include "libray/base/ring.h"
#include "tests/gcs/shard_process.h"

namespace ray::gcs {
namespace {

using namespace test;
namespace fs = std::filesystem;

std::vector<std::string> replay(const std::string& dir, uint64_t after = 0) {
  std::vector<std::string> all;
  auto j = Journal::open({dir, 0, 32u << 20}, after, [&](const Entry& e) {
    all.push_back(std::to_string(e.sn) + ":" + std::string(e.blob.substr(0, 20)));
    return true;
  });
  EXPECT_TRUE(j.ok()) << j.status().message();
  return all;
}

std::unique_ptr<Journal> open(const std::string& dir, uint64_t segment = 32u << 20) {
  auto j = Journal::open({dir, 0, segment}, 0, [](const Entry&) { return true; });
  EXPECT_TRUE(j.ok()) << j.status().message();
  return std::move(*j);
}

Status put(Journal* j, const std::vector<std::string>& blobs) {
  std::vector<Entry> entries;
  for (const std::string& b : blobs) {
    Entry e;
    e.sn = j->last_sn() + 1 + entries.size();
    e.blob = b;
    entries.push_back(e);
  }
  return j->commit(entries);
}

TEST(Journal, WhatIsCommittedComesBackInOrder) {
  TempDir dir;
  {
    auto j = open(dir.path());
    ASSERT_TRUE(put(j.get(), {"a", "b"}).ok());
    ASSERT_TRUE(put(j.get(), {"c"}).ok());
  }
  EXPECT_EQ(replay(dir.path()), (std::vector<std::string>{"1:a", "2:b", "3:c"}));
  EXPECT_EQ(replay(dir.path(), 2), (std::vector<std::string>{"3:c"}));
}

TEST(Journal, SegmentsRollOverAndAreDropped) {
  TempDir dir;
  auto j = open(dir.path(), 100000);
  std::string blob(30000, 'x');
  for (int k = 0; k < 20; ++k) ASSERT_TRUE(put(j.get(), {blob}).ok());
  size_t n = j->segments().size();
  EXPECT_GE(n, 4u);
  JournalReader reader;
  uint64_t seen = 0;
  ASSERT_TRUE(reader.read(j->segments(), 7, [&](const Entry& e) { return ++seen, e.sn < 20; }).ok());
  EXPECT_EQ(seen, 13u);
  j->drop_through(10, 0);
  EXPECT_LT(j->segments().size(), n);
  EXPECT_LE(j->segments()[0].first_sn, 11u);
  j->drop_through(20, 0);
  EXPECT_EQ(j->segments().size(), 1u);
  EXPECT_EQ(list_segments(dir.path(), 0)->size(), 1u);
}

TEST(Journal, ADamagedRecordEndsIt) {
  TempDir dir;
  {
    auto j = open(dir.path(), 60000);
    for (int k = 1; k <= 12; ++k) ASSERT_TRUE(put(j.get(), {"record " + std::to_string(k) + std::string(20000, 'y')}).ok());
  }
  auto files = *list_segments(dir.path(), 0);
  ASSERT_GE(files.size(), 3u);
  // Overwrites a byte of a blob in the second file, through SQLite so that its own checksums agree.
  sql(files[1].path, "UPDATE log SET blob=zeroblob(100) WHERE sn=" + std::to_string(files[1].first_sn + 1));
  auto all = replay(dir.path());
  EXPECT_EQ(all.size(), files[1].first_sn);
  // The cut is final: later records do not reappear behind new ones.
  {
    auto j = open(dir.path());
    EXPECT_EQ(j->last_sn(), files[1].first_sn);
    ASSERT_TRUE(put(j.get(), {"new"}).ok());
  }
  all = replay(dir.path());
  EXPECT_EQ(all.back(), std::to_string(files[1].first_sn + 1) + ":new");
}

TEST(Journal, ATornTailIsCut) {
  for (int cut : {1, 100, 5000, 20000, 33000}) {
    TempDir dir;
    {
      auto j = open(dir.path());
      for (int k = 1; k <= 5; ++k) ASSERT_TRUE(put(j.get(), {std::to_string(k) + std::string(9000, 'z')}).ok());
    }
    // Killed: the log of the last file keeps what was written; then its end is torn off.
    std::string wal = (*list_segments(dir.path(), 0))[0].path + "-wal";
    ASSERT_TRUE(fs::exists(wal));
    fs::resize_file(wal, fs::file_size(wal) - static_cast<size_t>(cut));
    auto all = replay(dir.path());
    EXPECT_LT(all.size(), 5u);
    for (size_t k = 0; k < all.size(); ++k) EXPECT_EQ(all[k][0], static_cast<char>('1' + k));
    auto j = open(dir.path());
    ASSERT_TRUE(put(j.get(), {"next"}).ok());
    EXPECT_EQ(j->last_sn(), all.size() + 1);
  }
}

TEST(Journal, GarbageInsteadOfAFileIsSetAside) {
  TempDir dir;
  {
    auto j = open(dir.path());
    ASSERT_TRUE(put(j.get(), {"a"}).ok());
  }
  std::ofstream(dir.path() + "/gcs-0.log.0000000000000002") << std::string(50000, 'g');
  EXPECT_EQ(replay(dir.path()), (std::vector<std::string>{"1:a"}));
  EXPECT_TRUE(fs::exists(dir.path() + "/gcs-0.log.0000000000000002.bad"));
}

TEST(Journal, AFailedCommitLeavesNothingAndTheNextWorks) {
  TempDir dir;
  {
    auto j = open(dir.path());
    ASSERT_TRUE(put(j.get(), {"a"}).ok());
    ASSERT_TRUE(set_fault("gcs.journal.commit", "fail"));
    EXPECT_FALSE(put(j.get(), {"lost"}).ok());
    EXPECT_EQ(j->last_sn(), 1u);
    set_fault("gcs.journal.commit", "");
    ASSERT_TRUE(put(j.get(), {"b"}).ok());
  }
  EXPECT_EQ(replay(dir.path()), (std::vector<std::string>{"1:a", "2:b"}));
}

bool g_no_room_for_index = false;

// SQLite's write of one byte makes its index grow: once per 4062 pages of the log, when all of a transaction is written.
template <ssize_t (*real)(int, const void*, size_t, off_t)>
ssize_t write_unless_full(int fd, const void* bytes, size_t n, off_t at) {
  if (n == 1 && g_no_room_for_index) {
    errno = ENOSPC;
    return -1;
  }
  return real(fd, bytes, n, at);
}

TEST(Journal, ARefusedTransactionDoesNotComeBackAfterAKill) {
  TempDir dir, after;
  auto j = open(dir.path(), 64u << 20);
  sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr);
  for (const char* call : {"pwrite64", "pwrite"})
    vfs->xSetSystemCall(vfs, call, reinterpret_cast<sqlite3_syscall_ptr>(&write_unless_full<pwrite>));
  const std::string large(400000, 'x');
  g_no_room_for_index = true;
  size_t n = 0;
  while (n < 100 && put(j.get(), {"good " + large}).ok()) ++n;
  g_no_room_for_index = false;
  ASSERT_GT(n, 50u);
  ASSERT_LT(n, 100u) << "no commit was refused";
  ASSERT_TRUE(put(j.get(), {"new 1"}).ok());
  ASSERT_TRUE(put(j.get(), {"new 2"}).ok());
  // What a kill -9 leaves: the files, without the index in shared memory.
  for (auto& f : fs::directory_iterator(dir.path()))
    if (!f.path().string().ends_with("-shm")) fs::copy(f.path(), after.path());
  vfs->xSetSystemCall(vfs, nullptr, nullptr);
  auto all = replay(after.path());
  ASSERT_EQ(all.size(), n + 2);
  EXPECT_EQ(all[n], std::to_string(n + 1) + ":new 1");
  EXPECT_EQ(all[n + 1], std::to_string(n + 2) + ":new 2");
}

TEST(Journal, RecordsWhoseNumbersWereGivenAgainAreNone) {
  TempDir dir;
  {
    auto j = open(dir.path());
    ASSERT_TRUE(put(j.get(), {"a", "b", "refused", "refused too"}).ok());
  }
  // As if the file could not be cut either: the next segment says what counts.
  TempDir other;
  {
    auto j = Journal::open({other.path(), 0, 32u << 20}, 2, [](const Entry&) { return true; });
    ASSERT_TRUE(j.ok());
    ASSERT_TRUE(put(j->get(), {"c"}).ok());
  }
  for (auto& f : fs::directory_iterator(other.path())) fs::copy(f.path(), dir.path());
  JournalReader reader;
  std::vector<std::string> read;
  auto files = list_segments(dir.path(), 0);
  ASSERT_TRUE(files.ok());
  ASSERT_TRUE(reader.read(*files, 0, [&](const Entry& e) { return read.emplace_back(e.blob), true; }).ok());
  EXPECT_EQ(read, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(replay(dir.path()), (std::vector<std::string>{"1:a", "2:b", "3:c"}));
}

TEST(Journal, WhatCannotBeOpenedNowIsNoDamage) {
  TempDir dir;
  {
    auto j = open(dir.path(), 20000);
    for (int k = 0; k < 8; ++k) ASSERT_TRUE(put(j.get(), {"record" + std::string(9000, 'x')}).ok());
  }
  int lowest = ::dup(0);
  ::close(lowest);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  bool refused = false, opened = false;
  for (int more = 0; more < 12; ++more) {
    rlimit few = before;
    few.rlim_cur = static_cast<rlim_t>(lowest + more);
    setrlimit(RLIMIT_NOFILE, &few);
    auto j = Journal::open({dir.path(), 0, 20000}, 0, [](const Entry&) { return true; });
    setrlimit(RLIMIT_NOFILE, &before);
    (j.ok() ? opened : refused) = true;
    if (j.ok()) {
      EXPECT_EQ((*j)->last_sn(), 8u) << "with " << more << " descriptors";
    }
  }
  EXPECT_TRUE(refused && opened);
  EXPECT_EQ(replay(dir.path()).size(), 8u);
  EXPECT_FALSE(list_segments(dir.path() + "/absent", 0).ok());
}

TEST(Journal, ASegmentIsCutByWhatItHasOnDisk) {
  TempDir dir;
  auto j = open(dir.path(), 1u << 20);
  for (int k = 0; k < 600; ++k) ASSERT_TRUE(put(j.get(), {"small"}).ok());
  EXPECT_GE(j->segments().size(), 4u);
  uint64_t on_disk = 0;
  for (auto& f : fs::directory_iterator(dir.path()))
    if (!f.path().string().ends_with("-shm")) on_disk += fs::file_size(f.path());
  EXPECT_NEAR(static_cast<double>(j->bytes()), static_cast<double>(on_disk), 65536.0);
  for (const JournalFile& f : j->segments()) EXPECT_LT(fs::file_size(f.path + "-wal"), (1u << 20) + 65536);
  j->drop_through(j->last_sn(), 0);
  EXPECT_EQ(j->segments().size(), 1u);
}

// Bound while it was not reset, they would be refused.
TEST(Statement, TakesOtherParametersAfterAFailure) {
  auto db = Database::open(":memory:", true, 100);
  ASSERT_TRUE(db.ok());
  Statement s;
  ASSERT_TRUE(s.prepare(db->get(), "SELECT abs(?)").ok());
  EXPECT_FALSE(s.bind(1, INT64_MIN).row());  // has no absolute value
  EXPECT_FALSE(s.done());
  ASSERT_TRUE(s.bind(1, 7).row());
  EXPECT_EQ(s.integer(0), 7);
}

// ---- materialiser --------------------------------------------------------------------------------------------

struct Lineage {
  explicit Lineage(const std::string& where = {}, uint32_t shard = 0) : path(where.empty() ? dir.path() : where), shard(shard) {
    auto j = Journal::open({path, shard, 32u << 20}, 0, [](const Entry&) { return true; });
    EXPECT_TRUE(j.ok()) << j.status().message();
    journal = std::move(*j);
  }
  TempDir dir;
  std::string path;
  uint32_t shard;
  std::unique_ptr<Journal> journal;
  uint64_t lsn = 1;
  TaskId root = root_task(node_of(9));
  Origin origin = origin_of(root);

  void commit(const std::string& records, uint32_t n, bool damage = false) {
    Entry e;
    e.sn = journal->last_sn() + 1;
    e.kind = Entry::kLineage;
    e.node = node_of(1);
    e.epoch = 1;
    e.lsn = lsn;
    e.n = n;
    e.codec = Codec::kLz4;
    e.raw_size = records.size();
    std::string blob(static_cast<size_t>(LZ4_compressBound(static_cast<int>(records.size()))), '\0');
    blob.resize(static_cast<size_t>(LZ4_compress_default(records.data(), blob.data(), static_cast<int>(records.size()),
                                                         static_cast<int>(blob.size()))));
    if (damage) blob.resize(blob.size() / 2);
    e.blob = blob;
    lsn += n;
    ASSERT_TRUE(journal->commit({e}).ok());
  }
  void commit_row(Table table, std::string_view key, std::string_view value) {
    std::string record;
    wire::Writer(&record).array(7).uint64(0).uint64(0).uint64(0).int64(0).str("").bin(std::string_view())
        .array(1).array(4).uint64(static_cast<uint64_t>(table)).bin(key).uint64(1).bin(value);
    Entry e;
    e.sn = journal->last_sn() + 1;
    e.blob = record;
    ASSERT_TRUE(journal->commit({e}).ok());
  }
  void materialise() {
    auto m = Materialiser::open(path, shard);
    ASSERT_TRUE(m.ok()) << m.status().message();
    while ((*m)->watermark() < journal->last_sn()) {
      Status s = (*m)->advance(journal->segments(), journal->last_sn());
      ASSERT_TRUE(s.ok()) << s.message();
    }
  }
  std::string one(const std::string& query) {
    auto rows = sql(path + "/gcs-" + std::to_string(shard) + ".db", query);
    return rows.empty() ? "" : rows[0];
  }
};

lineage::ExecIn execution(const TaskId& task, uint32_t attempt, int32_t code, const std::string& error = "") {
  lineage::ExecIn e;
  e.fixed.task = task;
  e.fixed.execution = attempt;
  e.fixed.code = code;
  e.fixed.start_ns = 1000 * (attempt + 1);
  e.fixed.end_ns = 1000 * (attempt + 1) + 500;
  e.fixed.pid = 100 + attempt;
  e.error = error;
  return e;
}

TEST(Materialise, HalvesThatArriveApartMeet) {
  Lineage l;
  std::string both, submit, exec;
  add_task(&both, child_task(l.origin, 1), l.root, 10);
  lineage::BatchReader r(both);
  uint16_t type;
  std::string_view payload;
  ASSERT_TRUE(r.next(&type, &payload));
  submit = both.substr(0, static_cast<size_t>(payload.data() + payload.size() - both.data() + 7) / 8 * 8);
  exec = both.substr(submit.size());
  for (bool submit_first : {true, false}) {
    Lineage m;
    m.commit(submit_first ? submit : exec, 1);
    m.materialise();
    EXPECT_EQ(m.one("SELECT state FROM tasks"), submit_first ? "SUBMITTED" : "FINISHED");
    m.commit(submit_first ? exec : submit, 1);
    m.materialise();
    EXPECT_EQ(m.one("SELECT name,state,args,result,pid,submit_ns,start_ns FROM tasks"), "noop|FINISHED|7|7|4711|10|1010");
    EXPECT_EQ(m.one("SELECT count(*) FROM tasks"), "1");
  }
}

TEST(Materialise, TheHighestVersionWinsAndAllExecutionsAreKept) {
  for (int order = 0; order < 6; ++order) {
    Lineage l;
    TaskId t = child_task(l.origin, 5);
    int sequence[3] = {0, 1, 2};
    for (int k = 0; k < order; ++k) std::next_permutation(sequence, sequence + 3);
    for (int k : sequence) {
      std::string b;
      append(&b, execution(t, static_cast<uint32_t>(k), k == 2 ? RAY_OK : RAY_WORKER_CRASHED, k == 2 ? "" : "crash"));
      l.commit(b, 1);
      l.materialise();
      l.lsn -= 1;  // the same record once more: nothing changes
      l.commit(b, 1);
      l.materialise();
    }
    EXPECT_EQ(l.one("SELECT attempt,state,pid FROM tasks"), "2|FINISHED|102");
    EXPECT_EQ(l.one("SELECT group_concat(attempt),group_concat(code),group_concat(pid) FROM "
                    "(SELECT * FROM executions ORDER BY attempt)"),
              "0,1,2|WORKER_CRASHED,WORKER_CRASHED,OK|100,101,102");
  }
}

TEST(Materialise, ValuesAreReadable) {
  auto text = [](uint32_t format, std::string_view bytes) {
    std::string s;
    append_value(&s, format, bytes);
    return s;
  };
  EXPECT_EQ(text(RAY_FMT_RAW, "hello"), "\"hello\"");
  EXPECT_EQ(text(RAY_FMT_RAW, std::string_view("\x2a\0\0\0\0\0\0\0", 8)), "42");
  EXPECT_EQ(text(RAY_FMT_RAW, "\xff\xff\xff\xff"), "-1");
  EXPECT_EQ(text(RAY_FMT_RAW, std::string_view("\x01\x02\x03", 3)), "0x010203");
  EXPECT_EQ(text(RAY_FMT_PICKLE5, "\x80\x05K\x01."), "0x80054b012e");
  std::string packed;
  wire::Writer(&packed).array(5).int64(-3).float64(0.5).str("a\"b").boolean(true).map(1).str("k").nil();
  EXPECT_EQ(text(RAY_FMT_MSGPACK, packed), "[-3, 0.5, \"a\\\"b\", true, {\"k\": null}]");
  EXPECT_EQ(text(RAY_FMT_MSGPACK, "\x93\x01"), "0x9301");  // malformed
  EXPECT_EQ(text(RAY_FMT_MSGPACK, std::string(5000, '\x91')).substr(0, 4), "0x91");
  EXPECT_LE(text(RAY_FMT_RAW, std::string(100000, 'a')).size(), 300u);
}

TEST(Materialise, SeveralResultsErrorsAndEvents) {
  Lineage l;
  std::string b;
  TaskId t = child_task(l.origin, 1), f = child_task(l.origin, 2);
  add_task(&b, t, l.root, 10, {}, 3);
  append(&b, execution(f, 0, RAY_TASK_FAILED, "ValueError: no"));
  std::string event;
  wire::Writer(&event).map(1).str("kind").str("worker-died");
  lineage::append_event(&b, lineage::kError, 1'000'000'000, 3, event);
  lineage::append_event(&b, lineage::kEvent, 2'000'000'000, 3, event);
  l.commit(b, 5);
  l.materialise();
  EXPECT_EQ(l.one("SELECT count(*),min(value),sum(size) FROM objects WHERE state='READY'"), "3|7|3");
  EXPECT_EQ(l.one("SELECT object FROM objects WHERE producer='" + t.hex() + "' ORDER BY object DESC"),
            return_object(t, 2).hex());
  EXPECT_EQ(l.one("SELECT state,code,error FROM tasks WHERE task='" + f.hex() + "'"), "FAILED|TASK_FAILED|ValueError: no");
  EXPECT_EQ(l.one("SELECT time,json_extract(info,'$.kind') FROM errors"), "1970-01-01T00:00:01.000000000Z|worker-died");
  EXPECT_EQ(l.one("SELECT count(*) FROM events"), "1");
}

// Tasks k of 0..n-1 that end one after the other; every third needs the result of the one before.
void add_many(Lineage* l, uint32_t first, uint32_t n) {
  std::string b;
  for (uint32_t k = first; k < first + n; ++k) {
    std::vector<ObjectId> refs;
    if (k % 3 == 2) refs.push_back(return_object(child_task(l->origin, k - 1), 0));
    add_task(&b, child_task(l->origin, k), l->root, 10000 * (k + 1), refs, 2);
  }
  l->commit(b, n * 2);
  l->materialise();
}

TEST(Prune, OldestFinishedTasksGoAndTheirRowsWithThem) {
  ::setenv("LIBRAY_TASK_ROWS", "80", 1);
  Lineage l;
  for (uint32_t k = 0; k < 10; ++k) {
    add_many(&l, k * 30, 30);
    EXPECT_LE(std::stoi(l.one("SELECT count(*) FROM task_rows")), 90);
  }
  ::unsetenv("LIBRAY_TASK_ROWS");
  int kept = std::stoi(l.one("SELECT count(*) FROM task_rows"));
  EXPECT_GE(kept, 80);
  // The newest are there, all of them; and what belongs to a task goes with it.
  EXPECT_EQ(l.one("SELECT min(submit_ns) FROM task_rows"), std::to_string(10000 * (300 - kept + 1)));
  EXPECT_EQ(l.one("SELECT count(*) FROM arg_rows WHERE task NOT IN (SELECT id FROM task_rows)"), "0");
  EXPECT_EQ(l.one("SELECT count(*) FROM object_rows"), std::to_string(kept));
  EXPECT_EQ(l.one("SELECT value FROM meta WHERE key='pruned_tasks'"), std::to_string(300 - kept));
}

// An actor is dead when its state says so, and not when it is called that.
TEST(Prune, TheTaskThatMadeALivingActorStays) {
  ::setenv("LIBRAY_TASK_ROWS", "20", 1);
  Lineage l;
  const char *states[] = {"ALIVE", "DEAD"}, *names[] = {"DEAD", "ALIVE"};
  for (uint32_t k = 0; k < 2; ++k) {
    Id actor = actor_of(child_task(l.origin, k));
    std::string row;
    wire::Writer(&row).map(3).str("actor").str(actor.hex()).str("state").str(states[k]).str("name").str(names[k]);
    l.commit_row(Table::kActors, {reinterpret_cast<const char*>(actor.b), kIdSize}, row);
  }
  add_many(&l, 0, 100);
  add_many(&l, 100, 30);
  ::unsetenv("LIBRAY_TASK_ROWS");
  EXPECT_LE(std::stoi(l.one("SELECT count(*) FROM task_rows")), 30);
  auto rows_of = [&](uint32_t k) {
    return l.one("SELECT count(*) FROM tasks WHERE task='" + child_task(l.origin, k).hex() + "'");
  };
  EXPECT_EQ(rows_of(0), "1");
  EXPECT_EQ(rows_of(1), "0");
}

TEST(Prune, WhatUnfinishedTasksNeedStays) {
  Lineage l;
  TaskId parent = child_task(l.origin, 0), producer = child_task(l.origin, 1), child = child_task(origin_of(parent), 7);
  std::string b, both;
  add_task(&b, parent, l.root, 10);    // finished, long ago; its child has not
  add_task(&b, producer, l.root, 20);  // made what the child waits for
  add_task(&both, child, parent, 30, {return_object(producer, 0)});
  lineage::BatchReader r(both);
  uint16_t type;
  std::string_view payload;
  ASSERT_TRUE(r.next(&type, &payload));
  size_t submission = static_cast<size_t>(payload.data() + payload.size() - both.data() + 7) / 8 * 8;
  b += both.substr(0, submission);
  l.commit(b, 5);
  ::setenv("LIBRAY_TASK_ROWS", "20", 1);
  for (uint32_t k = 0; k < 5; ++k) add_many(&l, 100 + k * 30, 30);
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE submit_ns<100"), "3");
  // It ends: nobody needs the two any more.
  l.commit(both.substr(submission), 1);
  for (uint32_t k = 5; k < 8; ++k) add_many(&l, 100 + k * 30, 30);
  ::unsetenv("LIBRAY_TASK_ROWS");
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE submit_ns<100"), "0");
}

// The submission of a task, or all but it.
std::string half(const std::string& both, bool submission) {
  lineage::BatchReader r(both);
  uint16_t type;
  std::string_view payload;
  EXPECT_TRUE(r.next(&type, &payload));
  size_t end = static_cast<size_t>(payload.data() + payload.size() - both.data() + 7) / 8 * 8;
  return submission ? both.substr(0, end) : both.substr(end);
}

template <class Record>
void add_record(std::string* batch, uint16_t type, const Record& record) {
  RecordHeader h{static_cast<uint32_t>(sizeof h + sizeof record), type, 0};
  batch->append(reinterpret_cast<const char*>(&h), sizeof h).append(reinterpret_cast<const char*>(&record), sizeof record);
}

TEST(Prune, WhatTasksOfOtherShardsNeedStays) {
  Lineage l, other(l.path, 1);
  TaskId parent = child_task(l.origin, 0), child = child_task(origin_of(parent), 7);
  std::string b, both, mark;
  add_task(&b, parent, l.root, 10);
  l.commit(b, 2);
  add_task(&both, child, parent, 30);
  other.commit(half(both, true), 1);
  add_record(&mark, lineage::kMark, lineage::MarkRecord{50});
  other.commit(mark, 1);
  other.materialise();
  ::setenv("LIBRAY_TASK_ROWS", "20", 1);
  for (uint32_t k = 0; k < 5; ++k) add_many(&l, 100 + k * 30, 30);
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE submit_ns=10"), "1");
  // Of what ended after its mark the other shard may not know yet whether somebody needs it.
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows"), "151");
  mark.clear();
  add_record(&mark, lineage::kMark, lineage::MarkRecord{1'000'000'000});
  other.commit(half(both, false), 1);
  other.commit(mark, 1);
  other.materialise();
  add_many(&l, 400, 30);
  ::unsetenv("LIBRAY_TASK_ROWS");
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE submit_ns=10"), "0");
  EXPECT_LT(std::stoi(l.one("SELECT count(*) FROM task_rows")), 30);
}

TEST(Prune, ATaskThatRunsAgainStays) {
  Lineage l;
  TaskId t = child_task(l.origin, 3);
  std::string b, later;
  add_task(&b, t, l.root, 10);
  add_record(&b, lineage::kAgain, lineage::AgainRecord{t, 1, 0});
  l.commit(b, 3);
  ::setenv("LIBRAY_TASK_ROWS", "20", 1);
  for (uint32_t k = 0; k < 3; ++k) add_many(&l, 100 + k * 30, 30);
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE submit_ns=10"), "1");
  append(&later, execution(t, 1, RAY_OK));
  l.commit(later, 1);
  for (uint32_t k = 3; k < 6; ++k) add_many(&l, 100 + k * 30, 30);
  ::unsetenv("LIBRAY_TASK_ROWS");
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE submit_ns=10"), "0");
}

// Some failures only the submitter knows of. What a worker told of the same execution stands, whichever comes first.
TEST(Prune, ATaskThatNoWorkerTellsOfHasAnEnd) {
  Lineage l;
  std::string b;
  const std::string why = "its argument, ...";
  auto end = [&](const TaskId& t, uint32_t attempt, int32_t code) {
    lineage::EndRecord r{t, 50, attempt, code, static_cast<uint32_t>(why.size()), 0};
    RecordHeader h{static_cast<uint32_t>(sizeof h + sizeof r + why.size()), lineage::kEnd, 0};
    b.append(reinterpret_cast<const char*>(&h), sizeof h).append(reinterpret_cast<const char*>(&r), sizeof r);
    b.append(why).resize(pad8(b.size()));
  };
  TaskId never = child_task(l.origin, 1), again = child_task(l.origin, 2), told = child_task(l.origin, 3);
  for (const TaskId& t : {never, again, told}) {
    std::string both;
    add_task(&both, t, l.root, 10);
    b += half(both, true);
  }
  end(never, 0, RAY_TASK_FAILED);
  append(&b, execution(again, 0, RAY_TASK_FAILED));
  add_record(&b, lineage::kAgain, lineage::AgainRecord{again, 1, 0});
  end(again, 1, RAY_WORKER_CRASHED);
  append(&b, execution(told, 0, RAY_OK));
  end(told, 0, RAY_WORKER_CRASHED);
  l.commit(b, 9);
  l.materialise();
  auto row = [&](const TaskId& t) {
    return l.one("SELECT state||' '||COALESCE(code,'')||' '||COALESCE(error,'') FROM tasks WHERE task='" + t.hex() + "'");
  };
  EXPECT_EQ(row(never), "FAILED TASK_FAILED its argument, ...");
  EXPECT_EQ(row(again), "FAILED WORKER_CRASHED its argument, ...");
  EXPECT_EQ(row(told), "FINISHED OK ");
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE COALESCE(again>execution, 0)"), "0");
}

// A killed submitter tells of no end. Its index is used again, and others may submit its tasks anew.
TEST(Prune, WhatAProcessThatIsGoneHadSubmittedHasAnEnd) {
  for (const bool apart : {false, true}) {
    Lineage l;
    std::string b;
    auto task = [&](uint32_t k) { return child_task(l.origin, k); };
    auto row = [&](uint32_t k) {
      return l.one("SELECT state||' '||COALESCE(code,'') FROM tasks WHERE task='" + task(k).hex() + "'");
    };
    auto next = [&](const std::string& record) {
      b += record;
      if (apart) l.commit(std::exchange(b, ""), 1), l.materialise();
    };
    auto submitted = [&](uint32_t k, uint32_t process) {
      std::string both;
      add_task(&both, task(k), l.root, 10);
      std::string submission = half(both, true);
      std::memcpy(submission.data() + sizeof(RecordHeader) + offsetof(lineage::SubmitRecord, process), &process, 4);
      return submission;
    };
    auto executed = [&](uint32_t k, uint32_t attempt, int32_t code) {
      std::string record;
      append(&record, execution(task(k), attempt, code));
      return record;
    };
    auto again = [&](uint32_t k) {
      std::string record;
      add_record(&record, lineage::kAgain, lineage::AgainRecord{task(k), 1, 0});
      return record;
    };
    auto left = [&](uint32_t process) {
      std::string record;
      add_record(&record, lineage::kLeft, lineage::LeftRecord{50, process, 0});
      return record;
    };
    for (uint32_t k = 9; k > 0; --k) next(submitted(k, k == 4 ? 8 : 7));
    next(executed(2, 0, RAY_TASK_FAILED));
    next(again(2));  // it was to run once more
    next(executed(3, 0, RAY_OK));
    next(submitted(5, 8));  // taken over before
    next(left(7));
    next(submitted(6, 8));  // and after
    next(executed(7, 0, RAY_OK));  // the worker has ended it all the same
    next(submitted(8, 8));
    next(executed(8, 0, RAY_TASK_FAILED));
    next(submitted(10, 7));  // by the next process of this index
    next(submitted(11, 7));
    next(left(9));
    if (!apart) l.commit(b, 1), l.materialise();
    EXPECT_EQ(row(1), "CANCELLED CANCELLED");
    EXPECT_EQ(row(2), "CANCELLED CANCELLED");
    EXPECT_EQ(row(3), "FINISHED OK");
    EXPECT_EQ(row(4), "SUBMITTED ");
    EXPECT_EQ(row(5), "SUBMITTED ");
    EXPECT_EQ(row(6), "SUBMITTED ");
    EXPECT_EQ(row(7), "FINISHED OK");
    EXPECT_EQ(row(8), "FAILED TASK_FAILED");
    EXPECT_EQ(row(9), "CANCELLED CANCELLED");
    EXPECT_EQ(row(10), "SUBMITTED ");
    EXPECT_EQ(row(11), "SUBMITTED ");
    ::setenv("LIBRAY_TASK_ROWS", "20", 1);
    for (uint32_t k = 0; k < 3; ++k) add_many(&l, 100 + k * 30, 30);
    ::unsetenv("LIBRAY_TASK_ROWS");
    EXPECT_EQ(row(1) + row(2) + row(9), "");
    EXPECT_EQ(row(10), "SUBMITTED ");
    EXPECT_EQ(l.one("SELECT count(*) FROM task_rows WHERE end_ns IS NULL OR again>execution"), "5");
  }
}

// Keys and values do not go with tasks, so tasks do not go for them.
TEST(Prune, ValuesDoNotPushTasksOut) {
  ::setenv("LIBRAY_TABLE_BYTES", "2000000", 1);
  Lineage l;
  l.commit_row(Table::kKv, "large", std::string(6'000'000, 'x'));
  for (uint32_t k = 0; k < 5; ++k) add_many(&l, k * 300, 300);
  ::unsetenv("LIBRAY_TABLE_BYTES");
  EXPECT_EQ(l.one("SELECT count(*) FROM state"), "1");
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows"), "1500");
}

TEST(Prune, TablesAreBoundedInBytes) {
  ::setenv("LIBRAY_TABLE_BYTES", "2000000", 1);
  Lineage l;
  auto used = [&] {
    return std::stoll(l.one("SELECT (p.page_count-f.freelist_count)*8192 FROM pragma_page_count() p, pragma_freelist_count() f"));
  };
  std::string event;
  wire::Writer(&event).map(1).str("text").str(std::string(20000, 'x'));
  for (uint32_t k = 0; k < 12; ++k) {
    add_many(&l, k * 2000, 2000);
    std::string b;
    for (int i = 0; i < 20; ++i) lineage::append_event(&b, lineage::kEvent, k, 3, event);
    l.commit(b, 20);
    l.materialise();
    EXPECT_LE(used(), 3'500'000);
  }
  ::unsetenv("LIBRAY_TABLE_BYTES");
  EXPECT_GT(std::stoi(l.one("SELECT count(*) FROM task_rows")), 500);
  EXPECT_EQ(l.one("SELECT value FROM meta WHERE key='limit_bytes'"), "2000000");
}

TEST(Prune, AKillInTheMiddleLeavesAllOrNothing) {
  Lineage l;
  add_many(&l, 0, 100);
  ASSERT_EXIT(
      {
        ::setenv("LIBRAY_TASK_ROWS", "20", 1);
        set_fault("gcs.prune.mid", "kill");
        add_many(&l, 100, 30);
        ::_exit(0);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_EQ(l.one("SELECT count(*) FROM task_rows"), "130");
  EXPECT_EQ(l.one("SELECT count(*) FROM meta WHERE key='pruned_tasks'"), "0");
}

// Each of many small changes writes whole pages to the WAL of the tables.
TEST(Materialise, TheWalOfTheTablesIsBoundedByWhatItHasOnDisk) {
  Lineage l;
  auto m = Materialiser::open(l.path, 0);
  ASSERT_TRUE(m.ok());
  for (uint32_t k = 0; k < 1200; ++k) {
    std::string b;
    add_task(&b, child_task(l.origin, k * 7919), l.root, 10);
    l.commit(b, 2);
    ASSERT_TRUE((*m)->advance(l.journal->segments(), l.journal->last_sn()).ok());
    ASSERT_LT(fs::file_size(l.path + "/gcs-0.db-wal"), 36u << 20);
  }
}

TEST(Materialise, DamagedBatchesAreSkippedNotFatal) {
  Lineage l;
  std::string good, bad = "garbage that is no record of any kind.....";
  add_task(&good, child_task(l.origin, 1), l.root, 10);
  l.commit(good, 2);
  l.commit(bad, 1);
  l.commit(good, 2, true);
  std::string more;
  add_task(&more, child_task(l.origin, 2), l.root, 10);
  l.commit(more, 2);
  l.materialise();
  EXPECT_EQ(l.one("SELECT count(*) FROM tasks"), "2");
}

TEST(Materialise, AToolFinishesADeadSession) {
  TempDir dir;
  ShardProcess shard(dir.path());
  ASSERT_TRUE(shard.start());
  {
    auto first = connect({shard.url()}, node_of(1));
    EXPECT_EQ(kv_put(first.get(), 0, "ns", "k", "v").code, RAY_OK);
  }
  EXPECT_EQ(shard.stop(), 0);
  // The fault ends it at the first rows that it writes, so what is appended is all that comes.
  ASSERT_TRUE(shard.start("gcs.materialise.mid=kill"));
  EXPECT_EQ(materialise_all(dir.path()).code(), RAY_WRONG_STATE);  // it lives
  auto c = connect({shard.url()}, node_of(1));
  std::string b;
  TaskId root = root_task(node_of(9));
  for (uint32_t k = 0; k < 100; ++k) add_task(&b, child_task(origin_of(root), k), root, 10);
  append(c.get(), 0, b, 200);
  EXPECT_EQ(shard.wait_dead(), SIGKILL);
  ASSERT_TRUE(materialise_all(dir.path()).ok());
  EXPECT_EQ(sql(shard.database(), "SELECT count(*) FROM tasks")[0], "100");
  EXPECT_EQ(sql(shard.database(), "SELECT ns,key,value,version FROM kv")[0], "ns|k|v|1");
  ASSERT_TRUE(materialise_all(shard.database()).ok());
  // And the shard goes on from there.
  ASSERT_TRUE(shard.start());
  EXPECT_EQ(kv_get(c.get(), 0, "ns", "k").code, RAY_OK);
  EXPECT_EQ(append(c.get(), 0, b, 200), 400u);
}

}  // namespace
}  // namespace ray::gcs
