// Actors: state, order, names, handles inside of values, deaths and restarts.
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <fstream>
#include <mutex>

#include "fixture.h"

namespace bank {
class Account {
 public:
  Account(std::string owner, int64_t balance) : owner_(std::move(owner)), balance_(balance) {
    if (balance < 0) throw std::invalid_argument("a negative balance");
  }
  virtual ~Account() {
    if (!farewell_.empty()) std::ofstream(farewell_) << owner_;
  }
  int64_t deposit(int64_t x) { return balance_ += x; }
  int64_t balance() const noexcept { return balance_; }
  const std::string& owner() const { return owner_; }
  void fails() { throw std::domain_error("no"); }
  void crash() { std::raise(SIGKILL); }
  void leave() { ray::exit_actor("enough"); }
  void say_farewell(const std::string& file) { farewell_ = file; }
  ray::generator<int64_t> years(int n) {
    for (int i = 0; i < n; ++i) co_yield balance_ += 1;
  }
  void log(ray::sink<std::string> out, int n) {
    for (int i = 0; i < n; ++i) out.yield(owner_ + std::to_string(i));
  }
  ray::actor_handle<Account> me() { return ray::self<Account>(); }
  int over(int x) { return x; }
  std::string over(std::string x) { return x; }

 private:
  std::string owner_, farewell_;
  int64_t balance_;
};
class Savings : public Account {
 public:
  Savings() : Account("saver", 1000) {}
  int64_t interest() { return deposit(balance() / 10); }
};
RAY_ACTOR(Account(std::string, int64_t), &Account::deposit, &Account::balance, &Account::owner,
          &Account::fails, &Account::crash, &Account::leave, &Account::say_farewell,
          &Account::years, &Account::log, &Account::me,
          static_cast<int (Account::*)(int)>(&Account::over));
RAY_ACTOR(Savings, &Savings::interest, &Account::balance);
}  // namespace bank
using bank::Account;

// Who comes waits until all are there.
class Meeting {
 public:
  explicit Meeting(int seats) : seats_(seats) {}
  ~Meeting() {
    if (!file_.empty()) std::ofstream(file_) << inside_;
  }
  int come() {
    std::unique_lock<std::mutex> lock(mutex_);
    int seat = ++here_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return here_ == seats_; });
    return seat;
  }
  void fails() { throw std::runtime_error("no"); }
  void passes() {
    ++inside_;
    usleep(500);
    --inside_;
  }
  void note_end(const std::string& file) { file_ = file; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int seats_, here_ = 0;
  std::atomic<int> inside_{0};
  std::string file_;
};
RAY_ACTOR(Meeting(int), &Meeting::come, &Meeting::fails, &Meeting::passes, &Meeting::note_end);

int64_t deposit_into(const std::vector<ray::actor_handle<Account>>& accounts, int64_t x) {
  int64_t sum = 0;
  for (const auto& a : accounts) sum += a.call(&Account::deposit, x).get();
  return sum;
}
std::string owner_of(ray::actor_handle<Account> a) { return a.call(&Account::owner).get(); }
RAY_REMOTE(deposit_into, owner_of);

TEST(Actors, StateAndOrder) {
  auto a = ray::actor<Account>("ann", 10);
  std::vector<ray::ref<int64_t>> refs;
  for (int64_t i = 1; i <= 500; ++i) refs.push_back(a.call(&Account::deposit, 1));
  std::vector<int64_t> all = ray::get(refs);
  for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<int64_t>(11 + i));
  EXPECT_EQ(a.call(&Account::owner).get(), "ann");
  EXPECT_EQ(a.call(&Account::deposit, ray::put(int64_t{5})).get(), 515);
}

TEST(Actors, InheritedAndOverloadedMethods) {
  auto s = ray::actor<bank::Savings>();
  EXPECT_EQ(s.call(&bank::Savings::interest).get(), 1100);
  EXPECT_EQ(s.call(&Account::balance).get(), 1100);
  auto a = ray::actor<Account>("ann", 0);
  EXPECT_EQ(a.call(static_cast<int (Account::*)(int)>(&Account::over), 3).get(), 3);
  EXPECT_TRUE(contains(thrown<ray::invalid_argument>([&] {
                         a.call(static_cast<std::string (Account::*)(std::string)>(&Account::over),
                                "x");
                       }),
                       "RAY_ACTOR"));
}

TEST(Actors, ExceptionsNameTheMethodAndLeaveTheActorAlive) {
  auto a = ray::actor<Account>("ann", 10);
  try {
    a.call(&Account::fails).get();
    FAIL();
  } catch (const ray::task_error& e) {
    EXPECT_EQ(e.type_name(), "std::domain_error");
    EXPECT_EQ(e.function(), "Account::fails");
  }
  EXPECT_EQ(a.call(&Account::balance).get(), 10);
}

TEST(Actors, AConstructorThatThrowsShowsInTheCalls) {
  auto a = ray::actor<Account>("ann", -1);
  try {
    a.call(&Account::balance).get();
    FAIL();
  } catch (const ray::actor_died& e) {
    EXPECT_EQ(e.details().type_name(), "std::invalid_argument");
    EXPECT_EQ(e.details().function(), "constructor of Account");
    EXPECT_TRUE(contains(e.what(), "a negative balance"));
  }
}

TEST(Actors, HandlesTravelAndAreFoundByName) {
  auto a = ray::actor<Account>({.name = "joint"}, "joint", 0);
  auto b = ray::actor<Account>("b", 100);
  EXPECT_EQ(ray::task(deposit_into)(std::vector<ray::actor_handle<Account>>{a, b, a}, 5).get(),
            5 + 105 + 10);
  EXPECT_EQ(ray::task(owner_of)(a).get(), "joint");
  EXPECT_EQ(ray::find_actor<Account>("joint").id(), a.id());
  EXPECT_EQ(a.call(&Account::me).get().id(), a.id());
  EXPECT_TRUE(contains(thrown<ray::wrong_type>([] { ray::find_actor<bank::Savings>("joint"); }),
                       "Account"));
  EXPECT_EQ(ray::find_actor<void>("joint").call_named<std::string()>("owner").get(), "joint");
  thrown<ray::already_exists>([] { ray::actor<Account>({.name = "joint"}, "x", 0); });
  EXPECT_EQ((ray::actor<Account>({.name = "joint", .get_if_exists = true}, "x", 0).id()), a.id());
  thrown<ray::not_found>([] { ray::find_actor<Account>("nobody"); });
  EXPECT_EQ(
      (ray::actor_of_class(ray::language::native, "", "Account", {}, std::string("c"), int64_t{3})
           .call_named<int64_t()>("balance")
           .get()),
      3);
  thrown<ray::unknown_function>(
      [&] { ray::find_actor<void>("joint").call_named<void()>("nonsense").get(); });
}

TEST(Actors, RestartsBeginAnew) {
  auto a = ray::actor<Account>({.max_restarts = 1, .max_task_retries = 1}, "ann", 10);
  EXPECT_EQ(a.call(&Account::deposit, 1).get(), 11);
  thrown<ray::error>([&] { a.call({.max_retries = 0}, &Account::crash).get(); });
  EXPECT_EQ(a.call(&Account::balance).get(), 10);
  a.kill();
  thrown<ray::actor_died>([&] { a.call(&Account::balance).get(); });
}

TEST(Actors, TheLastHandleRunsTheDestructorAndLeavingToo) {
  for (bool leaves : {false, true}) {
    const std::string file = testing::TempDir() + "farewell-" + std::to_string(getpid()) +
                             (leaves ? "-left" : "-released");
    {
      auto a = ray::actor<Account>("ann", 10);
      a.call(&Account::say_farewell, file).get();
      if (leaves) a.call(&Account::leave).get();
      if (leaves) thrown<ray::actor_died>([&] { a.call(&Account::balance).get(); });
    }
    std::string owner;
    for (int i = 0; owner.empty() && i < 3000; ++i) {
      std::ifstream(file) >> owner;
      usleep(1000);
    }
    EXPECT_EQ(owner, "ann") << leaves;
  }
}

TEST(Actors, DetachedOnesOutliveTheirHandles) {
  ray::id id;
  {
    auto a = ray::actor<Account>({.name = "eternal", .detached = true}, "e", 1);
    id = a.id();
    a.call(&Account::deposit, 1).get();
  }
  auto again = ray::find_actor<Account>("eternal");
  EXPECT_EQ(again.id(), id);
  EXPECT_EQ(again.call(&Account::balance).get(), 2);
  again.kill();
}

TEST(Actors, StreamsOfMethods) {
  auto a = ray::actor<Account>("ann", 10);
  std::vector<int64_t> years;
  for (int64_t y : a.call(&Account::years, 5)) years.push_back(y);
  EXPECT_EQ(years, (std::vector<int64_t>{11, 12, 13, 14, 15}));
  std::string all;
  for (const std::string& line : a.call(&Account::log, 3)) all += line;
  EXPECT_EQ(all, "ann0ann1ann2");
}

TEST(Actors, CallsAtOnceOnThreads) {
  auto m = ray::actor<Meeting>({.max_concurrency = 4}, 4);
  std::vector<ray::ref<int>> all;
  for (int i = 0; i < 4; ++i) all.push_back(m.call(&Meeting::come));
  std::vector<int> seats = ray::get(all);  // each waits for the other three
  std::sort(seats.begin(), seats.end());
  EXPECT_EQ(seats, (std::vector<int>{1, 2, 3, 4}));
  thrown<ray::task_error>([&] { m.call(&Meeting::fails).get(); });
  const std::string file = testing::TempDir() + "meeting-" + std::to_string(getpid());
  m.call(&Meeting::note_end, file).get();
  for (int i = 0; i < 100; ++i) m.call(&Meeting::passes);
  m = {};
  std::string mark;
  for (int i = 0; mark.empty() && i < 5000; ++i) {
    std::ifstream(file) >> mark;
    usleep(1000);
  }
  EXPECT_EQ(mark, "0");  // nobody was in a call when it was destroyed
}

TEST(Actors, ALimitOfPendingCallsIsAnAnswer) {
  auto a = ray::actor<Account>({.max_pending_calls = 1}, "ann", 10);
  auto slow = a.call(&Account::years, 1);
  bool refused = false;
  for (int i = 0; i < 10000 && !refused; ++i) {
    auto r = a.call_result(&Account::balance);
    refused = !r && r.error().code() == RAY_UNAVAILABLE && r.error().retryable();
  }
  EXPECT_TRUE(refused);
}
