// Frames, handshake and endpoint by hand: who is refused, and what for.
#include <gtest/gtest.h>

#include "libray/base/sha256.h"
#include "libray/net/core/endpoint.h"
#include "libray/wire/msgpack.h"

namespace ray::net {
namespace {

Identity node(uint8_t number, uint32_t epoch = 1, uint64_t incarnation = 0) {
  Identity who;
  who.node.b[0] = number;
  who.epoch = epoch;
  who.incarnation = incarnation ? incarnation : number;
  return who;
}

struct Side {
  explicit Side(const Identity& who, std::string token = "token", EndpointOptions options = {})
      : endpoint(who, std::move(token), [this] { return ++random; }, options) {}
  uint64_t random = 0;
  Endpoint endpoint;
  Actions actions;
  bool closed = false;
  std::vector<std::string> log, refused, messages;
  Peer peer = 0;
  uint32_t ups = 0, resets = 0;
};

// Carries the bytes of a connection, of the same number on both sides, until nothing moves.
void carry(Side& a, Side& b, int64_t now, Conn conn = 1) {
  for (bool moved = true; moved;) {
    moved = false;
    for (Side* from : {&a, &b}) {
      Side* to = from == &a ? &b : &a;
      Actions actions = std::move(from->actions);
      from->actions.clear();
      for (Action& x : actions) {
        if ((x.kind == Action::kWrite || x.kind == Action::kClose) && x.conn != conn) continue;  // an earlier one
        if (x.kind == Action::kWrite) {
          std::string bytes;
          for (auto& piece : x.pieces) bytes += piece.head + (piece.body ? *piece.body : "");
          if (!to->closed) to->endpoint.received(x.conn, bytes, now, &to->actions);
          from->endpoint.written(x.conn, now, &from->actions);
          moved = true;
        } else if (x.kind == Action::kClose) {
          from->closed = true;
          if (!to->closed) to->endpoint.closed(x.conn, "closed", now, &to->actions);
          to->closed = moved = true;
        } else if (x.kind == Action::kLog) {
          from->log.push_back(x.text);
        } else if (x.kind == Action::kRefused) {
          from->refused.push_back(x.text);
        } else if (x.kind == Action::kDeliver) {
          from->messages.push_back(x.text);
        } else if (x.kind == Action::kUp) {
          from->peer = x.peer;
          ++from->ups;
        } else if (x.kind == Action::kReset) {
          ++from->resets;
        }
      }
    }
  }
}

void connect(Side& a, Side& b, int64_t now = 1, Conn conn = 1) {
  a.closed = b.closed = false;
  a.endpoint.dial(1, "b", 0, now, &a.actions);
  a.actions.clear();
  b.endpoint.accepted(conn, "a", now, &b.actions);
  a.endpoint.dialled(1, conn, now, &a.actions);
  carry(a, b, now, conn);
}

TEST(NetHandshake, TwoNodesMeetAndTalk) {
  Side a(node(1)), b(node(2));
  connect(a, b);
  ASSERT_EQ(a.ups, 1u);
  ASSERT_EQ(b.ups, 1u);
  a.endpoint.enqueue(a.peer, kNormal, std::make_shared<std::string>("to b"), 2, &a.actions);
  b.endpoint.enqueue(b.peer, kUrgent, std::make_shared<std::string>("to a"), 2, &b.actions);
  carry(a, b, 2);
  EXPECT_EQ(b.messages, std::vector<std::string>{"to b"});
  EXPECT_EQ(a.messages, std::vector<std::string>{"to a"});
  EXPECT_EQ(a.endpoint.find(a.peer)->node, node(2).node);
  EXPECT_TRUE(a.log.empty() && b.log.empty());
}

TEST(NetHandshake, AnotherTokenIsRefusedOnBothSides) {
  Side a(node(1), "token"), b(node(2), "another");
  connect(a, b);
  EXPECT_EQ(a.ups + b.ups, 0u);
  ASSERT_EQ(b.log.size(), 1u);
  EXPECT_NE(b.log[0].find("another token"), std::string::npos) << b.log[0];
  ASSERT_EQ(a.refused.size(), 1u);
  EXPECT_NE(a.refused[0].find("another token"), std::string::npos) << a.refused[0];
  EXPECT_TRUE(a.closed && b.closed);
}

TEST(NetHandshake, AListenerSaysNothingToWhoSaysNothingRight) {
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n"),
                                   std::string(100, '\0'), std::string(100, '\xff'), frame_of(Kind::kProof, "x"),
                                   frame_of(Kind::kData, "x"), frame_of(Kind::kHello, "x")}) {
    Side b(node(2));
    b.endpoint.accepted(1, "10.0.0.9:77", 1, &b.actions);
    EXPECT_TRUE(b.actions.empty());
    b.endpoint.received(1, bytes, 2, &b.actions);
    int lines = 0;
    std::string written;
    for (Action& x : b.actions) {
      lines += x.kind == Action::kLog;
      for (auto& piece : x.pieces) written += piece.head;
    }
    EXPECT_EQ(lines, 1);
    EXPECT_EQ(written.find("libray node"), std::string::npos);  // no greeting: only why it ends
    b.endpoint.written(1, 3, &b.actions);
    EXPECT_EQ(b.actions.back().kind, Action::kClose);
  }
}

TEST(NetHandshake, WhoSaysNothingIsLeftAfterAWhile) {
  Side b(node(2));
  b.endpoint.accepted(1, "x", 1, &b.actions);
  EXPECT_LE(b.endpoint.deadline(), 6'000'000'000);
  b.endpoint.tick(6'000'000'000, &b.actions);
  ASSERT_FALSE(b.actions.empty());
  EXPECT_EQ(b.actions[0].kind, Action::kLog);
  b.actions.clear();
  b.endpoint.tick(20'000'000'000, &b.actions);  // it takes not even the reason
  ASSERT_EQ(b.actions.size(), 1u);
  EXPECT_EQ(b.actions[0].kind, Action::kClose);
  EXPECT_EQ(b.endpoint.deadline(), INT64_MAX);
}

TEST(NetHandshake, StrangersAreBoundedAndTheLogTooIs) {
  EndpointOptions o;
  o.max_strangers = 8;
  Side b(node(2), "token", o);
  for (Conn conn = 1; conn <= 1000; ++conn) b.endpoint.accepted(conn, "x", 1, &b.actions);
  int closed = 0, lines = 0;
  for (Action& x : b.actions) closed += x.kind == Action::kClose, lines += x.kind == Action::kLog;
  EXPECT_EQ(closed, 998);  // of one address a quarter
  EXPECT_EQ(lines, 20);
}

// As many as there may be are silent, from as many places: whoever says who he is gets in all the same.
TEST(NetHandshake, TheSilentKeepNobodyOut) {
  Side a(node(1)), b(node(2));
  for (Conn conn = 1; conn <= 200; ++conn)
    b.endpoint.accepted(conn, "10.0.0." + std::to_string(conn) + ":1", 1, &b.actions);
  b.actions.clear();
  connect(a, b, 2, 1000);
  EXPECT_EQ(b.ups, 1u);
  // Nor those of its own address.
  Side c(node(3));
  for (Conn conn = 2000; conn <= 2200; ++conn) b.endpoint.accepted(conn, "a:" + std::to_string(conn), 3, &b.actions);
  b.actions.clear();
  connect(c, b, 4, 3000);
  EXPECT_EQ(b.ups, 2u);
}

// Somebody without the token says that he is a node which is dead: he is told what everybody is.
TEST(NetHandshake, AStrangerIsToldNothingOfOtherNodes) {
  Side a(node(1, 3)), b(node(2)), stranger(node(1, 3), "another token");
  connect(a, b);
  ASSERT_EQ(b.ups, 1u);
  b.endpoint.fence(node(1).node, 3, &b.actions);
  carry(a, b, 2);
  connect(stranger, b, 3, 2);
  ASSERT_FALSE(stranger.refused.empty());
  EXPECT_EQ(stranger.refused[0].find("dead"), std::string::npos) << stranger.refused[0];
  EXPECT_NE(stranger.refused[0].find("token"), std::string::npos) << stranger.refused[0];
}

TEST(NetHandshake, AProofCannotBeUsedTwice) {
  Handshake dialler(true, "token", Greeting{kNetVersion, node(1), 0, std::string(16, 'a')});
  std::string used;
  for (char nonce : {'b', 'c'}) {
    Handshake listener(false, "token", Greeting{kNetVersion, node(2), 0, std::string(16, nonce)});
    ASSERT_TRUE(listener.on_hello(std::string_view(dialler.hello()).substr(kHeadSize)).ok());
    ASSERT_TRUE(dialler.on_hello(std::string_view(listener.hello()).substr(kHeadSize)).ok());
    Resume r;
    if (used.empty()) used = dialler.proof(Resume{});
    EXPECT_EQ(listener.on_proof(std::string_view(used).substr(kHeadSize), &r).ok(), nonce == 'b');
    // Nor is a listener's own proof one of a dialler.
    EXPECT_FALSE(listener.on_proof(std::string_view(listener.proof(Resume{})).substr(kHeadSize), &r).ok());
  }
}

TEST(NetHandshake, AnotherVersionIsNamed) {
  wire::Packer p;
  p.array(3).str("libray node").uint64(9).str("whatever comes then");
  Handshake h(false, "token", Greeting{kNetVersion, node(2), 0, std::string(16, 'a')});
  const Status s = h.on_hello(p.bytes());
  EXPECT_EQ(s.code(), RAY_UNSUPPORTED);
  EXPECT_NE(s.message().find("version 9"), std::string::npos) << s.message();
}

TEST(NetEndpoint, AFencedNodeIsRefusedAndALaterOneOfItsNameIsNot) {
  Side a(node(1, 3)), b(node(2));
  connect(a, b);
  ASSERT_EQ(b.ups, 1u);
  b.endpoint.fence(node(1).node, 3, &b.actions);
  carry(a, b, 2);
  EXPECT_FALSE(b.endpoint.is_up(b.peer));
  connect(a, b, 3, 2);
  EXPECT_EQ(b.ups, 1u);
  ASSERT_FALSE(a.refused.empty());
  EXPECT_NE(a.refused[0].find("is dead for this cluster"), std::string::npos) << a.refused[0];
  Side again(node(1, 4, 77));
  connect(again, b, 4, 3);
  EXPECT_EQ(b.ups, 2u);
}

TEST(NetEndpoint, TheFencedAreBounded) {
  EndpointOptions o;
  o.max_fenced = 2;
  Side b(node(2), "token", o);
  for (uint8_t i = 3; i < 10; ++i) b.endpoint.fence(node(i).node, 1, &b.actions);
  Side old(node(3)), last(node(9));
  connect(old, b, 1, 1);
  EXPECT_EQ(b.ups, 1u);
  connect(last, b, 2, 2);
  EXPECT_EQ(b.ups, 1u);
}

TEST(NetEndpoint, AnotherDaemonOfANodeBeginsAFreshSession) {
  Side b(node(2));
  Side a(node(1, 1, 100));
  connect(a, b);
  b.endpoint.enqueue(b.peer, kNormal, std::make_shared<std::string>("first"), 2, &b.actions);
  a.endpoint.enqueue(a.peer, kNormal, std::make_shared<std::string>("first"), 2, &a.actions);
  carry(a, b, 2);
  Side later(node(1, 2, 200));
  connect(later, b, 3, 2);
  EXPECT_EQ(b.resets, 1u);
  EXPECT_EQ(later.ups, 1u);  // at once: it is told nothing of the other one's session
  b.endpoint.enqueue(b.peer, kNormal, std::make_shared<std::string>("second"), 4, &b.actions);
  carry(later, b, 4, 2);
  EXPECT_EQ(later.messages, std::vector<std::string>{"second"});
  Side early(node(1, 1, 100));  // the first one again
  connect(early, b, 5, 3);
  EXPECT_EQ(early.ups, 0u);
  ASSERT_FALSE(early.refused.empty());
  EXPECT_NE(early.refused[0].find("another daemon"), std::string::npos) << early.refused[0];
}

// Both dial at the same moment: connection 1 is dialled by a, connection 2 by b.
TEST(NetEndpoint, OfTwoConnectionsBothKeepTheSame) {
  for (bool first_before_second : {true, false}) {
    Side a(node(1)), b(node(2));
    Actions none;
    a.endpoint.dial(1, "b", 0, 1, &none);
    b.endpoint.dial(1, "a", 0, 1, &none);
    b.endpoint.accepted(1, "a", 1, &b.actions);
    a.endpoint.accepted(2, "b", 1, &a.actions);
    const auto first = [&] { a.endpoint.dialled(1, 1, 1, &a.actions), carry(a, b, 1, 1); };
    const auto second = [&] { b.endpoint.dialled(1, 2, 1, &b.actions), carry(b, a, 1, 2); };
    if (first_before_second) first(), second();
    else second(), first();
    ASSERT_TRUE(a.endpoint.is_up(a.peer) && b.endpoint.is_up(b.peer));
    a.endpoint.enqueue(a.peer, kNormal, std::make_shared<std::string>("still here"), 2, &a.actions);
    a.closed = b.closed = false;
    carry(a, b, 2, 1);  // the one that the smaller id dialled
    EXPECT_EQ(b.messages, std::vector<std::string>{"still here"}) << first_before_second;
  }
}

TEST(NetEndpoint, ANodeDoesNotTalkToItself) {
  Side a(node(1)), b(node(1));
  connect(a, b);
  EXPECT_EQ(a.ups + b.ups, 0u);
  ASSERT_FALSE(a.refused.empty());
}

// What a peer that knows the token may say wrongly, each the end of the connection.
TEST(NetSession, ABrokenPeerLosesTheConnection) {
  struct Case {
    const char* what;
    Head head;
    size_t body;
  };
  SessionOptions o;
  o.window[kNormal] = 1000;
  const Case cases[] = {{"a gap", {5, Kind::kData, kNormal, 2, 0, 0}, 5},
                        {"number 0", {5, Kind::kData, kNormal, 0, 0, 0}, 5},
                        {"an acknowledgement of nothing", {0, Kind::kAck, kNormal, 0, 1, 0}, 0},
                        {"a greeting", {0, Kind::kHello, kNormal, 0, 0, 0}, 0}};
  for (const Case& c : cases) {
    Session s(o);
    ASSERT_TRUE(s.attach(1, Resume{}, Resume{}).ok());
    bool message = true;
    EXPECT_FALSE(s.on_frame(2, c.head, std::string(c.body, 'x'), &message).ok()) << c.what;
    EXPECT_FALSE(message) << c.what;
  }
  Session s(o);
  ASSERT_TRUE(s.attach(1, Resume{}, Resume{}).ok());
  bool message = false;
  EXPECT_TRUE(s.on_frame(2, {2000, Kind::kData, kNormal, 1, 0, 0}, std::string(2000, 'x'), &message).ok());
  EXPECT_TRUE(message);  // one may be longer than the window
  EXPECT_FALSE(s.on_frame(2, {1, Kind::kData, kNormal, 2, 0, 0}, "x", &message).ok());
  Resume ahead;
  ahead.lane[kNormal].received = 1;
  EXPECT_FALSE(Session(o).attach(1, Resume{}, ahead).ok());
}

// Between the greeting and the session's start the user may consume, and messages may come over the connection before.
TEST(NetSession, WhatChangedSinceTheGreetingIsSaid) {
  SessionOptions o;
  Session s(o);
  ASSERT_TRUE(s.attach(1, s.resume(), Resume{}).ok());
  bool message = false;
  const uint32_t size = 1000;
  ASSERT_TRUE(s.on_frame(2, {size, Kind::kData, kNormal, 1, 0, 0}, std::string(size, 'x'), &message).ok());
  const Resume told = s.resume();
  s.consumed(kNormal, size);
  s.detach();
  ASSERT_TRUE(s.attach(3, told, Resume{}).ok());
  Piece p;
  ASSERT_TRUE(s.next(3, &p));
  Head head;
  std::string_view body;
  std::string why;
  FrameReader r(kMaxMessage);
  r.feed(p.head);
  ASSERT_EQ(r.next(&head, &body, &why), FrameReader::Next::kFrame);
  EXPECT_EQ(head.granted, o.window[kNormal] + size + kHeadSize);
}

TEST(NetSession, WhatWasNotAcknowledgedIsSentAgain) {
  Session s;
  ASSERT_TRUE(s.attach(1, s.resume(), Session().resume()).ok());
  for (const char* text : {"one", "two"}) s.enqueue(kNormal, std::make_shared<std::string>(text));
  Piece p;
  ASSERT_TRUE(s.next(1, &p) && s.next(1, &p));
  EXPECT_FALSE(s.next(1, &p));
  s.detach();
  EXPECT_FALSE(s.next(1, &p));
  Resume peer = Session().resume();
  peer.lane[kNormal].received = 1;
  ASSERT_TRUE(s.attach(2, s.resume(), peer).ok());
  ASSERT_TRUE(s.next(2, &p));
  EXPECT_EQ(*p.body, "two");
  EXPECT_FALSE(s.next(2, &p));
}

TEST(NetSession, UrgentMessagesOvertake) {
  Side a(node(1)), b(node(2));
  connect(a, b);
  // One write is under way while these are queued.
  for (int i = 0; i < 3; ++i)
    a.endpoint.enqueue(a.peer, kNormal, std::make_shared<std::string>("normal"), 2, &a.actions);
  a.endpoint.enqueue(a.peer, kUrgent, std::make_shared<std::string>("urgent"), 2, &a.actions);
  carry(a, b, 2);
  EXPECT_EQ(b.messages, (std::vector<std::string>{"normal", "urgent", "normal", "normal"}));
}

TEST(NetSession, ASilentPeerIsLeftAndAStoppedProcessBlamesNobody) {
  Side a(node(1)), b(node(2));
  connect(a, b, 1);
  a.endpoint.tick(1'000'000'000, &a.actions);
  a.endpoint.tick(2'000'000'000, &a.actions);
  a.endpoint.tick(60'000'000'000, &a.actions);  // stopped for a minute: what was said meanwhile is not read yet
  EXPECT_TRUE(a.endpoint.is_up(a.peer));
  for (int64_t t = 61; t <= 64; ++t) a.endpoint.tick(t * 1'000'000'000, &a.actions);
  EXPECT_FALSE(a.endpoint.is_up(a.peer));
}

TEST(NetFrame, HmacOfThePublishedVector) {  // RFC 4231, case 2
  const auto mac = hmac_sha256("Jefe", "what do ya want for nothing?");
  EXPECT_EQ(mac[0], 0x5b);
  EXPECT_EQ(mac[1], 0xdc);
  EXPECT_EQ(mac[31], 0x43);
}

}  // namespace
}  // namespace ray::net
