// Encodings: what was written is read, and nothing else is.
#include <gtest/gtest.h>

#include "libray/transfer/messages.h"

namespace ray::transfer {
namespace {

Message full() {
  Message m;
  m.kind = Kind::kDeny;
  m.why = Why::kBusy;
  m.copy.id.b[3] = 7;
  m.copy.making = 5;
  m.size = 1000;
  m.chunk = 3;
  m.have = Bits(70);
  m.have.set(69);
  m.peers = {{1, 2}, {3, 4}};
  m.bytes = "bytes";
  return m;
}

std::string bytes_of(const Message& m) {
  std::string out;
  encode(m, &out);
  return out;
}

TEST(TransferMessages, AreReadAsTheyWereWritten) {
  const Message m = full();
  const std::string bytes = bytes_of(m);
  Message read;
  ASSERT_TRUE(decode(bytes, &read).ok());
  EXPECT_EQ(read.kind, m.kind);
  EXPECT_EQ(read.why, m.why);
  EXPECT_EQ(read.copy, m.copy);
  EXPECT_EQ(read.size, m.size);
  EXPECT_EQ(read.chunk, m.chunk);
  EXPECT_EQ(read.have, m.have);
  EXPECT_EQ(read.peers, m.peers);
  EXPECT_EQ(read.bytes, "bytes");
  EXPECT_EQ(chunk_head(m.copy, 1000, 3, 5) + "bytes", [&] {
    Message chunk;
    chunk.kind = Kind::kChunk;
    chunk.copy = m.copy;
    chunk.size = 1000;
    chunk.chunk = 3;
    chunk.bytes = "bytes";
    return bytes_of(chunk);
  }());
}

TEST(TransferMessages, WhatIsCutOffOrTooLongIsRefused) {
  const std::string bytes = bytes_of(full());
  Message read;
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode(bytes.substr(0, n), &read).ok()) << n;
  EXPECT_FALSE(decode(bytes + "x", &read).ok());
  Message m = full();
  m.size = kMaxObject + 1;
  EXPECT_FALSE(decode(bytes_of(m), &read).ok());
  m = full();
  m.chunk = kMaxChunks;
  EXPECT_FALSE(decode(bytes_of(m), &read).ok());
  m = full();
  m.peers.resize(kMaxPeers + 1);
  EXPECT_FALSE(decode(bytes_of(m), &read).ok());
  std::string other = bytes;
  other[0] = 99;
  EXPECT_FALSE(decode(other, &read).ok());
}

TEST(TransferMessages, BitsBeyondTheEndAreNotTaken) {
  Message m = full();
  std::string bytes = bytes_of(m);
  for (size_t i = bytes.size() - 5 - 8; i < bytes.size() - 5; ++i) bytes[i] = '\xff';
  Message read;
  ASSERT_TRUE(decode(bytes, &read).ok());
  EXPECT_EQ(read.have.count(), 6u);
}

TEST(TransferMessages, OfLedgers) {
  LedgerMessage m;
  m.kind = LedgerKind::kLevel;
  m.bits = 3;
  m.id.b[0] = 9;
  m.origin = {4, 5};
  m.version = 6;
  m.floor = 7;
  m.view = 8;
  std::string bytes;
  encode(m, &bytes);
  LedgerMessage read;
  ASSERT_TRUE(decode(bytes, &read).ok());
  EXPECT_EQ(read.bits, 3);
  EXPECT_EQ(read.id, m.id);
  EXPECT_EQ(read.origin, m.origin);
  EXPECT_EQ(read.version + read.floor + read.view, 21u);
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode(bytes.substr(0, n), &read).ok());
  bytes[1] = 4;
  EXPECT_FALSE(decode(bytes, &read).ok());
  Message other;
  EXPECT_FALSE(decode(bytes, &other).ok());
}

}  // namespace
}  // namespace ray::transfer
