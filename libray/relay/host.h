// What stand-ins and gateways need of the relay (relay.cc): the sessions to other nodes, and what was told there. Any thread;
// none of these waits.
#pragma once
#include <cstdint>
#include <string>

#include "libray/base/ids.h"

namespace ray {
struct FunctionDefinition;
}

namespace ray::relay {

class Gateway;

class Host {
 public:
  virtual ~Host() = default;
  // In order. Nothing happens when the node is gone.
  virtual void send(const NodeId& to, std::string message) = 0;
  // Before a task of that function is sent to that node: its definition, unless it is there.
  virtual bool has_function(const NodeId& to, const JobId& job, uint64_t key) = 0;
  virtual void tell_function(const NodeId& to, const JobId& job, uint64_t key, const FunctionDefinition& d) = 0;
  virtual void lost_function(const NodeId& to, const JobId& job, uint64_t key) = 0;
  // How people know that node: "node 1 (0123abcd)".
  virtual std::string name_of(const NodeId& node) = 0;
  // From the thread that ends it: to be joined and forgotten. `text`: why, for the daemon.
  virtual void stand_in_over(uint64_t spawn, const std::string& text) = 0;
  virtual void gateway_over(Gateway* gateway) = 0;
};

}  // namespace ray::relay
