// A cancellation that comes when its call has ended is for nobody else: a real worker, and a client that speaks the
// protocol by hand, because no other one gives two tasks the same tag.
#include <gtest/gtest.h>

#include "libray/base/sha256.h"
#include "tests/node/cluster.h"

namespace ray::test {
namespace {

TEST(LateCancel, IsForNobodyElse) {
  Cluster cluster(1);
  RawClient d;
  // The worker: a program of functions for other tests.
  ASSERT_EQ(d.hello(cluster.session.dir, cluster.session.token, RAY_MODE_DRIVER, RAY_LANG_NATIVE, 0,
                    RawClient::driver_body({session::own_folder() + "/capi_outside"})),
            RAY_OK);
  d.shape(0, {{"CPU", 1}});
  want(&d, 0, 1);
  const auto lease = grant(&d);
  const uint64_t key = sha256_key("native:nothing");
  Link* link = d.using_[lease.link].get();
  for (uint32_t i = 0; i < 200; ++i) {
    wire::DoneHeader done{};
    ASSERT_TRUE(d.push(lease.link, 77, key));
    ASSERT_TRUE(d.result(lease.link, &done));
    ASSERT_EQ(done.tag, 77u);
    ASSERT_EQ(done.code, RAY_OK) << "round " << i;
    link->header->cancels[i % wire::kLinkCancelSlots].store(link->tasks_out.tail());
    link->header->cancel_count.store(i + 1);
    // Some before the worker has looked, some after.
    ring(&d.page->bells[link->peer].armed);
    ring(&d.page->bells[link->peer].urgent);
    if (i % 10 == 0) ::usleep(2000);
  }
}

// One of a call that has yet to begin is kept until it does.
TEST(LateCancel, WaitsForTheCallThatItIsFor) {
  Cluster cluster(1);
  RawClient d;
  ASSERT_EQ(d.hello(cluster.session.dir, cluster.session.token, RAY_MODE_DRIVER, RAY_LANG_NATIVE, 0,
                    RawClient::driver_body({session::own_folder() + "/capi_outside"})),
            RAY_OK);
  d.shape(0, {{"CPU", 1}});
  want(&d, 0, 1);
  const auto lease = grant(&d);
  const uint64_t key = sha256_key("native:nothing");
  Link* link = d.using_[lease.link].get();
  for (uint32_t i = 0; i < 50; ++i) {
    // Where a record of this size will end: before it is written.
    const uint64_t end = link->tasks_out.tail() + pad8(sizeof(RecordHeader) + sizeof(wire::TaskHeader));
    link->header->cancels[i % wire::kLinkCancelSlots].store(end);
    link->header->cancel_count.store(i + 1);
    ring(&d.page->bells[link->peer].armed);
    ring(&d.page->bells[link->peer].urgent);
    if (i % 10 == 0) ::usleep(2000);
    wire::DoneHeader done{};
    ASSERT_TRUE(d.push(lease.link, i, key));
    ASSERT_TRUE(d.result(lease.link, &done));
    ASSERT_EQ(done.code, RAY_CANCELLED) << "round " << i;
    ASSERT_TRUE(d.push(lease.link, i, key));
    ASSERT_TRUE(d.result(lease.link, &done));
    ASSERT_EQ(done.code, RAY_OK) << "round " << i;
  }
}

}  // namespace
}  // namespace ray::test
