// fixture.h -- what the tests of ray.hpp share: main starts one node for all tests of a program,
// and serves tasks in workers.
#pragma once
#include <gtest/gtest.h>

#include <ray.hpp>

// Runs `body`, expects an exception of type E and gives its message.
template <class E, class Body>
std::string thrown(Body body) {
  try {
    body();
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    ADD_FAILURE() << "another exception: " << e.what();
    return {};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}
inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
