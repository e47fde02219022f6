// A shared library whose C++ functions are tasks of other programs, see runtime_test.cc.
#include <ray.hpp>

#include <stdexcept>

namespace module {
int64_t twice(int64_t x) { return 2 * x; }
void fails() { throw std::runtime_error("in the library"); }
}  // namespace module
RAY_REMOTE(module::twice, module::fails);
RAY_MODULE();
