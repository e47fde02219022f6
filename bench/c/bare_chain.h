// See bare_chain.cc; bench_limits alone.
#pragma once
#include <cstddef>

// Nanoseconds a record, over `n` processes.
double bare_chain_ns(size_t n, size_t batch, size_t rounds);
