// A damaged journal of the control store: whatever happened to its files, opening it gives a prefix of
// what was written, never anything else, and it can be written again.
//
// Input: patches of a good segment: [file: 0 database, 1 WAL][offset, 2 bytes][size] and the bytes to put
// there; size 0 cuts the file at the offset, size 255 with no more bytes doubles its end.
#include "gcs/journal.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/fuzz.h"
#include "gcs/tables.h"
#include "libray/base/log.h"

using namespace ray;
using namespace ray::gcs;

namespace {

constexpr uint64_t kEntries = 40;

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string blob_of(uint64_t sn) { return std::string(20 + sn * 37 % 900, static_cast<char>(sn)); }

Entry entry_of(uint64_t sn, const std::string& blob) {
  Entry e;
  e.sn = sn;
  e.kind = sn % 3 ? Entry::kControl : Entry::kLineage;
  e.n = static_cast<uint32_t>(sn % 3 ? 0 : 1);
  e.lsn = sn;
  e.blob = blob;
  return e;
}

// A folder of this process, and the good files.
struct Good {
  std::string dir, path, database, wal;
  Good() {
    // Memory, where there is any: the files are made anew for every input.
    const char* base = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    dir = std::string(base) + "/libray-fuzz-journal-XXXXXX";
    FUZZ_CHECK(::mkdtemp(dir.data()) != nullptr);
    set_log_handler([](int32_t, const char*, const char*, const char*, void*) {}, kLogError, nullptr);
    auto j = Journal::open({dir, 0, 32u << 20}, 0, [](const Entry&) { return true; });
    FUZZ_CHECK(j.ok());
    for (uint64_t sn = 1; sn <= kEntries; sn += 2) {
      std::string one = blob_of(sn), two = blob_of(sn + 1);
      FUZZ_CHECK((*j)->commit({entry_of(sn, one), entry_of(sn + 1, two)}).ok());
    }
    path = (*j)->segments().back().path;
    database = read(path);
    wal = read(path + "-wal");  // before the close, which would keep them anyway
    FUZZ_CHECK(!wal.empty());
  }
  ~Good() { std::filesystem::remove_all(dir); }
};

void damage(std::string* file, std::string_view* input) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>((*input)[i]); };
  size_t at = byte(1) | byte(2) << 8, size = byte(3);
  input->remove_prefix(4);
  if (size == 0) return file->resize(std::min(at, file->size()));
  if (size == 255 && input->empty()) {
    file->append(file->substr(std::min(at, file->size())));
    return;
  }
  std::string_view bytes = input->substr(0, size);
  input->remove_prefix(bytes.size());
  for (size_t i = 0; i < bytes.size() && at + i < file->size(); ++i) (*file)[at + i] = bytes[i];
}

void expect_written(const Entry& e) {
  FUZZ_CHECK(e.sn >= 1 && e.sn <= kEntries);
  Entry right = entry_of(e.sn, "");
  FUZZ_CHECK(e.kind == right.kind && e.n == right.n && e.lsn == right.lsn);
  FUZZ_CHECK(e.blob == blob_of(e.sn));
}

}  // namespace

FUZZ_TARGET(journal) {
  static const Good good;
  for (const auto& f : std::filesystem::directory_iterator(good.dir))
    std::filesystem::remove(f.path());
  std::string files[2] = {good.database, good.wal};
  bool untouched = input.size() < 4;
  while (input.size() >= 4) damage(&files[input[0] & 1], &input);
  write(good.path, files[0]);
  write(good.path + "-wal", files[1]);

  uint64_t replayed = 0;
  Tables tables;
  auto j = Journal::open({good.dir, 0, 32u << 20}, 0, [&](const Entry& e) {
    expect_written(e);
    FUZZ_CHECK(e.sn == replayed + 1);
    tables.recover(e.sn, e.blob);  // no record of the tables: refused, or harmless
    replayed = e.sn;
    return true;
  });
  FUZZ_CHECK(j.ok());
  FUZZ_CHECK((*j)->last_sn() == replayed);
  FUZZ_CHECK(!untouched || replayed == kEntries);
  std::string more = "what comes after the damage";
  FUZZ_CHECK((*j)->commit({entry_of(replayed + 1, more)}).ok());
  JournalReader reader;
  uint64_t last = 0;
  Status s = reader.read((*j)->segments(), 0, [&](const Entry& e) {
    if (e.sn <= replayed) expect_written(e);
    last = e.sn;
    return true;
  });
  FUZZ_CHECK(!s.ok() || last == replayed + 1);
}
