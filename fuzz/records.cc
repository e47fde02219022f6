// Records of the node-local protocol: every view lies within the bytes, and what was read is written and read as the same.
#include "libray/wire/records.h"

#include <memory>

#include "fuzz/fuzz.h"

using namespace ray;
using namespace ray::wire;

namespace {

std::string joined(const void* head, size_t size, std::string_view tail) {
  return std::string(static_cast<const char*>(head), size).append(tail);
}

void create_again(const ActorCreateRecord& r, std::string_view bytes) {
  ActorCreateRecord copy = r, same;
  const std::string tail = write(&copy, r.dependencies.vector());
  const std::string again = joined(&copy.head, sizeof copy.head, tail);
  FUZZ_CHECK(again == bytes.substr(0, again.size()));
  FUZZ_CHECK(read(again, &same) && same.record == r.record && same.resources == r.resources && same.klass == r.klass);
}

void init_again(const ActorInitRecord& r, std::string_view bytes) {
  ActorInitRecord copy = r;
  const std::string tail = write(&copy, r.units.vector());
  const std::string again = joined(&copy.head, sizeof copy.head, tail);
  FUZZ_CHECK(again == bytes.substr(0, again.size()));
}

void task(std::string_view bytes) {
  TaskRecord r;
  if (!read(bytes, &r)) return;
  FUZZ_CHECK(r.args.data() + r.args.size() == bytes.data() + bytes.size());
  Parts parts(r.args);
  Value v;
  std::vector<uint8_t> out(bytes.size() + 8);
  for (uint32_t i = 0; i < r.head.n_args && read(&parts, &v); ++i) {
    FUZZ_CHECK(reinterpret_cast<const char*>(v.bytes) + v.head.size <= bytes.data() + bytes.size());
    FUZZ_CHECK(put_value(out.data(), v.head, v.bytes) == out.data() + value_size(v.head.size));
    Parts again(out.data(), value_size(v.head.size));
    Value same;
    FUZZ_CHECK(read(&again, &same) && same.head.size == v.head.size && again.left() == 0);
    if (v.head.where == kStore) (void)v.ref().id.hex();
  }
}

}  // namespace

FUZZ_TARGET(records) {
  // A copy of that very size, so that a sanitizer sees a look beyond it.
  auto image = std::make_unique<char[]>(input.size());
  if (!input.empty()) std::memcpy(image.get(), input.data(), input.size());
  const std::string_view bytes(image.get(), input.size());
  auto inside = [&](std::string_view part) {
    FUZZ_CHECK(part.empty() || (part.data() >= bytes.data() && part.data() + part.size() <= bytes.data() + bytes.size()));
  };
  ActorCreateRecord create;
  if (read(bytes, &create)) create_again(create, bytes);
  ActorInitRecord init;
  if (read(bytes, &init)) init_again(init, bytes);
  ActorSaysRecord says;
  ActorFacts facts;
  if (read(bytes, &says)) inside(says.text), (void)says.facts(&facts);
  ActorStateRecord state;
  if (read(bytes, &state)) inside(state.text);
  GrantRecord grant;
  if (read(bytes, &grant)) FUZZ_CHECK(grant.units.size() <= bytes.size() / sizeof(uint32_t));
  ObjectRecord object;
  if (read(bytes, &object)) FUZZ_CHECK(object.contained.vector().size() == object.head.n_contained);
  ResultRecord result;
  if (read(bytes, &result)) FUZZ_CHECK(result.contained.vector().size() == result.head.n_contained);
  PartRecord part;
  if (read(bytes, &part)) inside(part.bytes);
  task(bytes);
}
