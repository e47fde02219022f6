// What the C and C++ measurements share, see bench.h: rounds, rows as JSON, arguments.
#include "bench.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bench {

void check(ray_code code, ray_error* error, const char* what) {
  if (code == RAY_OK) return;
  ray_str why = ray_error_message(error);
  fprintf(stderr, "%s: %s: %.*s\n", what, ray_code_name(code), static_cast<int>(why.size),
          why.data);
  _Exit(1);
}

bool Bench::wants_any(std::initializer_list<const char*> names) const {
  return std::any_of(names.begin(), names.end(), [&](const char* n) { return wants(n); });
}

void Bench::add(const std::string& name, const std::string& unit, std::vector<double> values) {
  if (values.empty() || !wants(name)) return;
  std::sort(values.begin(), values.end());
  size_t n = values.size();
  double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  double mean = 0, square = 0;
  for (double v : values) mean += v / static_cast<double>(n);
  for (double v : values) square += (v - mean) * (v - mean);
  double deviation = n > 1 ? std::sqrt(square / static_cast<double>(n - 1)) : 0;
  rows_.push_back({name, unit, median, deviation});
  fprintf(stderr, "  %-34s %14.6g %s\n", name.c_str(), median, unit.c_str());
}

void Bench::measure(const std::string& name, const std::string& unit,
                    const std::function<double()>& round) {
  if (!wants(name)) return;
  round();
  std::vector<double> values;
  for (int i = 0; i < settings_.rounds(); i++) values.push_back(round());
  add(name, unit, values);
}

double Bench::rate(double per_step, const std::function<void()>& step) const {
  int64_t begin = now_ns(), end = begin + settings_.round_ns(), now = begin;
  double n = 0;
  while (now < end) {
    step();
    n += per_step;
    now = now_ns();
  }
  return n * 1e9 / static_cast<double>(now - begin);
}

static void write_json(const std::string& path, const char* language,
                       const std::vector<Row>& rows) {
  FILE* out = fopen(path.c_str(), "w");
  if (!out) {
    perror(path.c_str());
    _Exit(1);
  }
  fprintf(out, "[");
  for (size_t i = 0; i < rows.size(); i++)
    fprintf(out,
            "%s\n {\"name\": \"%s\", \"language\": \"%s\", \"value\": %.9g, \"unit\": \"%s\", "
            "\"deviation\": %.9g}",
            i ? "," : "", rows[i].name.c_str(), language, rows[i].value, rows[i].unit.c_str(),
            rows[i].deviation);
  fprintf(out, "\n]\n");
  fclose(out);
}

int run(int argc, char** argv, const char* language, void (*measure)(Bench&)) {
  Settings settings;
  std::string json;
  for (int i = 1; i < argc; i++) {
    std::string a = argv[i];
    if (a == "--quick")
      settings.quick = true;
    else if (a == "--growth")
      settings.growth = true;
    else if (a == "--sustained" && i + 1 < argc && atoi(argv[i + 1]) > 0)
      settings.sustained = atoi(argv[++i]);
    else if (a == "--json" && i + 1 < argc)
      json = argv[++i];
    else if (a == "--filter" && i + 1 < argc)
      settings.filter = argv[++i];
    else
      return fprintf(stderr, "usage: %s [--json FILE] [--filter TEXT] [--quick] [--growth] [--sustained SECONDS]\n",
                     argv[0]),
             2;
  }
  Bench b(settings);
  measure(b);
  if (!json.empty()) write_json(json, language, b.rows());
  return 0;
}

}  // namespace bench
