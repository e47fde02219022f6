// See status.h.
#include "libray/base/status.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace ray {

static std::string vformat(const char* format, va_list ap) {
  va_list again;
  va_copy(again, ap);
  int n = std::vsnprintf(nullptr, 0, format, ap);
  std::string s(n > 0 ? static_cast<size_t>(n) : 0, '\0');
  if (n > 0) std::vsnprintf(s.data(), s.size() + 1, format, again);
  va_end(again);
  return s;
}

std::string strprintf(const char* format, ...) {
  va_list ap;
  va_start(ap, format);
  std::string s = vformat(format, ap);
  va_end(ap);
  return s;
}

Status error(ray_code code, const char* format, ...) {
  va_list ap;
  va_start(ap, format);
  std::string s = vformat(format, ap);
  va_end(ap);
  return Status(code, std::move(s));
}

Status errno_error(ray_code code, const char* format, ...) {
  int saved = errno;
  va_list ap;
  va_start(ap, format);
  std::string s = vformat(format, ap);
  va_end(ap);
  s += ": ";
  s += std::strerror(saved);
  return Status(code, std::move(s));
}

}  // namespace ray
