// See status.h.
#include "libray/base/status.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "libray/base/codes.h"

namespace ray {

Status::Status(ray_code code, std::string message)
    : word_(code == RAY_OK ? 0 : reinterpret_cast<uintptr_t>(new Failure{code, std::move(message)})) {}

const std::string& Status::message() const {
  static const std::string none;
  return failure() ? failure()->message : none;
}

uintptr_t Status::copy_of(const Status& s) { return reinterpret_cast<uintptr_t>(new Failure(*s.failure())); }

void Status::end() { delete failure(); }

static std::string vformat(const char* format, va_list ap) {
  va_list again;
  va_copy(again, ap);
  int n = std::vsnprintf(nullptr, 0, format, ap);
  std::string s(n > 0 ? static_cast<size_t>(n) : 0, '\0');
  if (n > 0) std::vsnprintf(s.data(), s.size() + 1, format, again);
  va_end(again);
  return s;
}

const char* code_name(ray_code code) {
  switch (code) {
#define NAME(name, number) case number: return "RAY_" #name;
    RAY_FOR_EACH_CODE(NAME)
#undef NAME
    default: return "RAY_UNKNOWN";
  }
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
  rlimit limit{};
  if (saved == EMFILE && ::getrlimit(RLIMIT_NOFILE, &limit) == 0)
    s += strprintf(" (this process may open %llu: close some, or raise `ulimit -n`)",
                   static_cast<unsigned long long>(limit.rlim_cur));
  if (saved == ENFILE) s += " (the machine's limit, sysctl fs.file-max, is reached)";
  return Status(code, std::move(s));
}

}  // namespace ray
