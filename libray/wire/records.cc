// See records.h.
#include "libray/wire/records.h"

namespace ray::wire {

bool read(std::string_view record, ActorCreateRecord* out) {
  Parts parts(record);
  UpActorCreate& h = out->head;
  return parts.head(&h) && parts.bytes(h.name_size, &out->name) && parts.bytes(h.ns_size, &out->ns) &&
         parts.bytes(h.class_size, &out->klass) && parts.bytes(h.metadata_size, &out->metadata) &&
         parts.bytes(h.resources_size, &out->resources) && parts.bytes(h.record_size, &out->record) &&
         out->dependencies.read(&parts, h.n_dependencies);
}

std::string write(ActorCreateRecord* r, const std::vector<ObjectId>& dependencies) {
  std::string tail;
  tail.reserve(r->name.size() + r->ns.size() + r->klass.size() + r->metadata.size() + r->resources.size() +
               r->record.size() + dependencies.size() * kIdSize);
  auto add = [&tail](std::string_view part) {
    tail += part;
    return static_cast<uint32_t>(part.size());
  };
  r->head.name_size = add(r->name);
  r->head.ns_size = add(r->ns);
  r->head.class_size = add(r->klass);
  r->head.metadata_size = add(r->metadata);
  r->head.resources_size = add(r->resources);
  r->head.record_size = add(r->record);
  r->head.n_dependencies = static_cast<uint32_t>(dependencies.size());
  return tail.append(list_bytes(dependencies));
}

bool read(std::string_view record, ActorSaysRecord* out) {
  Parts parts(record);
  return parts.head(&out->head) && parts.bytes(out->head.size, &out->text);
}

bool read(std::string_view record, GrantRecord* out) {
  Parts parts(record);
  return parts.head(&out->head) && out->units.read(&parts, parts.left() / sizeof(uint32_t));
}

bool read(std::string_view record, ActorInitRecord* out) {
  Parts parts(record);
  return parts.head(&out->head) && parts.bytes(out->head.size, &out->record) &&
         out->units.read(&parts, out->head.n_gpus);
}

std::string write(ActorInitRecord* r, const std::vector<uint32_t>& units) {
  r->head.size = static_cast<uint32_t>(r->record.size());
  r->head.n_gpus = static_cast<uint32_t>(units.size());
  return std::string(r->record).append(list_bytes(units));
}

bool read(std::string_view record, ActorStateRecord* out) {
  Parts parts(record);
  return parts.head(&out->head) && parts.bytes(out->head.size, &out->text);
}

bool read(std::string_view record, TaskRecord* out) {
  Parts parts(record);
  if (!parts.head(&out->head)) return false;
  if (!parts.padded(out->head.name_size, &out->name) || !parts.padded(out->head.method_size, &out->method)) return false;
  out->args = parts.rest();
  return true;
}

}  // namespace ray::wire
