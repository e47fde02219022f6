// Some nodes with planner, server and a store each, and the network between them, all of one seed: links with delay and
// bandwidth, several connections between two nodes, cuts that lose what is under way, partitions, nodes that stop for a
// while, die and join, stores with little room that evict and spill, messages that come twice and out of order.
//
// What is checked as it happens: a ready request has all its copies, pinned, with the bytes of the making it asked for;
// room, windows and buffers are never exceeded; what is lost is nowhere. At the end: every request ended, and nothing is
// left of any. A Fault makes the world wrong on purpose, so that each checker can be seen to find it.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "libray/transfer/planner.h"
#include "libray/transfer/server.h"

namespace ray::transfer {

class PullWorld {
 public:
  enum Fault { kNone, kWrongBytes, kMoreRoom, kSwallow, kFalseLocate, kWideWindow, kMixedMakings, kLostPin };
  struct Options {
    uint32_t nodes = 4, channels = 2, objects = 12;
    uint64_t room = 60000, largest = 20000;
    bool cuts = false, pauses = false, deaths = false, evictions = false, doubles = false, room_changes = false;
    bool requests = true;
    int64_t delay_ns = 200'000;
    double node_rate = 2e6, connection_rate = 2e6;  // bytes a second
    Fault fault = kNone;
    PullOptions pull;
    ServeOptions serve;
  };
  static Options small();  // chunks of 256 bytes, so that objects have many
  PullWorld(uint64_t seed, const Options& options);
  void run(int64_t ns);
  void calm(int64_t ns);  // nothing more goes wrong, and no new request
  std::string verdict();  // empty, or what is wrong

  // For tests that want one thing: an object on a node, a request, what happened.
  Copy object(uint32_t node, uint64_t size);
  uint64_t request(uint32_t node, const std::vector<Want>& wants, Rank rank = Rank::kGet, int64_t keep_ns = 0);
  Place place(uint32_t node) const { return nodes_[node].place; }
  bool has(uint32_t node, const Copy& copy) const { return nodes_[node].stored.count(copy) > 0; }
  void spill(uint32_t node, const Copy& copy);
  void kill(uint32_t node);
  int64_t now() const { return now_; }
  int64_t ready_at(uint64_t request) const { return ready_at_.count(request) ? ready_at_.at(request) : -1; }
  bool lost(uint64_t request) const { return lost_.count(request) > 0; }
  uint64_t bytes_from(uint32_t node) const { return nodes_[node].bytes_out; }
  uint64_t ready() const { return ready_at_.size(); }
  uint64_t losses() const { return lost_.size(); }
  uint64_t repeated() const { return repeated_; }  // chunks that were here already

 private:
  struct Stored {
    std::string bytes;
    int planner_pins = 0, server_pins = 0;
    bool on_disk = false;
    int64_t since = 0;
  };
  struct Node {
    Place place;
    bool alive = true;
    int64_t paused_until = 0, ticking_at = INT64_MAX;
    uint64_t room = 0;
    std::unique_ptr<Planner> planner;
    std::unique_ptr<Server> server;
    std::map<Copy, Stored> stored;
    std::map<Copy, std::string> partial;
    std::set<uint64_t> open;   // requests
    std::set<uint64_t> holds;  // of these, ready
    double out_free = 0, in_free = 0;
    uint64_t bytes_out = 0;
  };
  struct Connection {
    bool up = true;
    uint64_t serial = 0;
    double free[2] = {0, 0};
    int64_t control[2] = {0, 0};
    uint32_t flying[2] = {0, 0};  // chunks
  };
  struct Asked {
    std::vector<Want> wants;
    int64_t keep_ns = 0;
  };
  using Pair = std::tuple<uint32_t, uint32_t, uint32_t>;  // smaller node, larger node, channel

  uint64_t random(uint64_t below) { return rng_() % below; }
  void at(int64_t time, std::function<void()> what) { events_.emplace(std::pair{time, next_event_++}, std::move(what)); }
  void at_node(int64_t time, Place place, std::function<void(Node&)> what);
  Node* living(Place place);
  Connection& connection(uint32_t a, uint32_t b, uint32_t channel);
  void boot(uint32_t node, uint32_t epoch);
  void connect(uint32_t a, uint32_t b, uint32_t channel);
  void cut(uint32_t a, uint32_t b, uint32_t channel, int64_t back_ns);
  void apply(Node& n, PullActions& actions);
  void apply(Node& n, ServeActions& actions);
  void apply_one(Node& n, const PullAction& a);
  void on_ready(Node& n, uint64_t request);
  void on_lost(Node& n, uint64_t request, const Copy& copy);
  void seal(Node& n, const Copy& copy);
  void give(Node& n, const ServeAction& a);
  void post(Node& from, Place to, uint32_t channel, std::string bytes, uint64_t ticket);
  void deliver(Node& n, Place from, uint32_t channel, const std::string& bytes);
  void list(const Copy& copy, Place place, bool there);
  void check(Node& n);
  void schedule_tick(Node& n);
  void ask_something();
  void harm();
  void evict(Node& n);
  void finish(Node& n, uint64_t request);
  const std::string& content(const Copy& copy) { return contents_.at(copy); }
  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  const Options options_;
  std::mt19937_64 rng_;
  int64_t now_ = 1'000'000'000;
  bool harmful_ = true;
  std::vector<Node> nodes_;
  std::map<Pair, Connection> connections_;
  std::map<std::pair<int64_t, uint64_t>, std::function<void()>> events_;
  uint64_t next_event_ = 0, next_request_ = 1, repeated_ = 0;
  std::vector<Copy> copies_;
  std::map<Copy, std::string> contents_;
  std::map<Copy, std::set<Place>> directory_;
  std::map<std::pair<Place, Copy>, int64_t> answered_;  // when its home was asked last, by whom
  std::map<uint64_t, Asked> asked_;
  std::map<uint64_t, int64_t> ready_at_;
  std::set<uint64_t> lost_;
  std::string wrong_;
};

}  // namespace ray::transfer
