// What a forked child inherits: the mappings, through which it reads the objects that were pinned at the fork. They
// must not change under it, so the parent keeps those pins until no child of that fork is left, which a pipe tells:
// the children hold its writing end. When the parent dies first, the daemon keeps its pins as long as children have its
// socket open. See client_impl.h.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>

#include "store/client_impl.h"

namespace ray::store {

namespace {

constexpr int64_t kLookNs = 20000000;  // between two looks for children that ended

struct Clients {
  std::mutex mutex;
  std::vector<ClientImpl*> list;
  int pipe[2] = {-1, -1};  // of the fork that is under way
};
Clients& clients() {
  static auto* c = new Clients;
  return *c;
}

}  // namespace

void ClientImpl::watch_forks() {
  static std::once_flag once;
  std::call_once(once, [] { ::pthread_atfork(before_fork, after_fork, in_child); });
  std::lock_guard lock(clients().mutex);
  clients().list.push_back(this);
}

void ClientImpl::forget_forks() {
  std::lock_guard lock(clients().mutex);
  std::erase(clients().list, this);
}

// Nothing is pinned or unpinned by other threads until the fork is over.
void ClientImpl::before_fork() {
  Clients& c = clients();
  c.mutex.lock();
  bool any = false;
  for (ClientImpl* client : c.list) {
    client->hold_mu_.lock();
    any |= client->hold_limit_ > client->free_holds_.size();
  }
  // Without descriptors a child may see changes, as without this file.
  if (any && ::pipe2(c.pipe, O_CLOEXEC) == 0) c.pipe[1] = out_of_the_way(Fd(c.pipe[1])).release();
}

void ClientImpl::after_fork() {
  Clients& c = clients();
  if (c.pipe[1] >= 0) ::close(c.pipe[1]);
  auto children = c.pipe[0] >= 0 ? std::make_shared<Fd>(out_of_the_way(Fd(c.pipe[0]))) : nullptr;
  c.pipe[0] = c.pipe[1] = -1;
  for (ClientImpl* client : c.list) {
    if (children && client->hold_limit_ > client->free_holds_.size()) {
      Inherited i{children, std::vector<bool>(client->hold_limit_, true), {}};
      for (uint32_t hold : client->free_holds_) i.holds[hold] = false;
      client->inherited_.push_back(std::move(i));
      client->any_inherited_.store(true, std::memory_order_relaxed);
    }
    client->hold_mu_.unlock();
  }
  c.mutex.unlock();
}

// The clients are the parent's. The pipe's end stays open as long as this process lives, or until it runs another
// program.
void ClientImpl::in_child() {
  Clients& c = clients();
  if (c.pipe[0] >= 0) ::close(c.pipe[0]);
  c.pipe[0] = c.pipe[1] = -1;
  for (ClientImpl* client : c.list) {
    // The daemon takes the socket's end for the end of all who read here: see on_death in daemon.cc.
    if (client->hold_limit_ == client->free_holds_.size()) client->socket_.reset();
    client->hold_mu_.unlock();
  }
  c.list.clear();
  c.mutex.unlock();
}

// Whether a child may still read what this hold keeps; then it is cleared later.
bool ClientImpl::kept_for_children(uint32_t hold) {
  look_for_children(true);
  std::lock_guard lock(hold_mu_);
  for (Inherited& i : inherited_)
    if (hold < i.holds.size() && i.holds[hold]) {
      i.kept.push_back(hold);
      i.holds[hold] = false;
      return true;
    }
  return false;
}

// What nobody but children that ended wanted goes.
void ClientImpl::look_for_children(bool now) {
  int64_t time = steady_ns();
  if (!now && time < next_look_.load(std::memory_order_relaxed)) return;
  next_look_.store(time + kLookNs, std::memory_order_relaxed);
  std::vector<uint32_t> gone;
  {
    std::lock_guard lock(hold_mu_);
    for (size_t at = 0; at < inherited_.size();) {
      pollfd p{inherited_[at].children->get(), POLLIN, 0};
      if (::poll(&p, 1, 0) == 0) {
        ++at;
        continue;
      }
      std::vector<uint32_t> kept = std::move(inherited_[at].kept);
      inherited_.erase(inherited_.begin() + static_cast<long>(at));
      for (uint32_t hold : kept) {
        auto other = std::find_if(inherited_.begin(), inherited_.end(), [&](Inherited& i) {
          return hold < i.holds.size() && i.holds[hold];
        });
        if (other == inherited_.end()) {
          gone.push_back(hold);
        } else {
          other->kept.push_back(hold);
          other->holds[hold] = false;
        }
      }
    }
    any_inherited_.store(!inherited_.empty(), std::memory_order_relaxed);
  }
  for (uint32_t hold : gone) {
    clear_hold(hold);
    give_hold(hold);
  }
}

// At the end of a client: a child that reads keeps its copy of the connection, and with it the pins.
bool ClientImpl::read_by_children() {
  if (!any_inherited_.load(std::memory_order_relaxed)) return false;
  look_for_children(true);
  return any_inherited_.load(std::memory_order_relaxed);
}

}  // namespace ray::store
