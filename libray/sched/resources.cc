// See resources.h.
#include "libray/sched/resources.h"

#include <cmath>

#include "libray/wire/limits.h"

namespace ray::sched {

std::string amount_text(Amount a) {
  std::string s = strprintf("%.4f", static_cast<double>(a) / kUnit);
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s;
}

Status Resources::add(const std::string& name, double amount) {
  if (name.empty() || name.size() > wire::kMaxResourceName)
    return error(RAY_INVALID_ARGUMENT, "resource name '%.64s' must have 1 to %zu bytes",
                 name.c_str(), wire::kMaxResourceName);
  if (!std::isfinite(amount) || amount < 0 || amount > wire::kMaxResourceAmount)
    return error(RAY_INVALID_ARGUMENT, "resource '%s': %g is not an amount from 0 to %g",
                 name.c_str(), amount, wire::kMaxResourceAmount);
  Amount a = std::llround(amount * kUnit);
  if (a == 0 && amount > 0)
    return error(RAY_INVALID_ARGUMENT, "resource '%s': %g is less than 0.0001", name.c_str(),
                 amount);
  if (a == 0)
    items_.erase(name);
  else
    items_[name] = a;
  return Status();
}

Amount Resources::get(const std::string& name) const {
  auto it = items_.find(name);
  return it == items_.end() ? 0 : it->second;
}

std::string Resources::to_string() const {
  std::string s;
  for (const auto& [name, amount] : items_)
    s += (s.empty() ? "" : ", ") + name + ": " + amount_text(amount);
  return s.empty() ? "nothing" : s;
}

}  // namespace ray::sched
