// See reader.h.
#include "libray/lineage/reader.h"

#include <cstring>

#include "libray/base/ring.h"

namespace ray::lineage {
namespace {

// A write cursor over memory that is known to be large enough.
struct Out {
  uint8_t* at;
  void put(const void* data, size_t size) {
    if (size) std::memcpy(at, data, size);
    at += size;
  }
  void put_padded(std::string_view bytes) {
    put(bytes.data(), bytes.size());
    size_t pad = pad8(bytes.size()) - bytes.size();
    std::memset(at, 0, pad);
    at += pad;
  }
};

// A read cursor that refuses to pass the end.
struct In {
  std::string_view rest;
  bool take(void* out, size_t size) {
    if (rest.size() < size) return false;
    std::memcpy(out, rest.data(), size);
    rest.remove_prefix(size);
    return true;
  }
  bool view(uint64_t size, std::string_view* out) {
    if (rest.size() < size) return false;
    *out = rest.substr(0, size);
    rest.remove_prefix(size);
    return true;
  }
  bool view_padded(uint64_t size, std::string_view* out) {
    if (rest.size() < size) return false;
    *out = rest.substr(0, size);
    uint64_t padded = pad8(size);
    if (rest.size() < padded) return false;
    rest.remove_prefix(padded);
    return true;
  }
};

template <class T>
void append_record(std::string* batch, uint16_t type, const T& in) {
  size_t payload = encoded_size(in), old = batch->size();
  RecordHeader h{static_cast<uint32_t>(sizeof(RecordHeader) + payload), type, 0};
  batch->resize(old + pad8(h.size));
  std::memcpy(batch->data() + old, &h, sizeof h);
  encode(in, reinterpret_cast<uint8_t*>(batch->data()) + old + sizeof h);
}

}  // namespace

size_t encoded_size(const SubmitIn& in) {
  size_t size = sizeof(SubmitRecord) + pad8(in.name.size()) + pad8(in.method.size());
  for (uint32_t i = 0; i < in.n_args; ++i) size += sizeof(ArgRecord) + pad8(in.args[i].bytes.size());
  return size;
}

void encode(const SubmitIn& in, uint8_t* out) {
  SubmitRecord fixed = in.fixed;
  fixed.n_args = in.n_args;
  fixed.name_size = static_cast<uint32_t>(in.name.size());
  fixed.method_size = static_cast<uint32_t>(in.method.size());
  Out o{out};
  o.put(&fixed, sizeof fixed);
  o.put_padded(in.name);
  o.put_padded(in.method);
  for (uint32_t i = 0; i < in.n_args; ++i) {
    ArgRecord a{in.args[i].is_ref, in.args[i].format, in.args[i].bytes.size()};
    o.put(&a, sizeof a);
    o.put_padded(in.args[i].bytes);
  }
}

size_t encoded_size(const ExecIn& in) {
  size_t size = sizeof(ExecRecord) + in.error.size();
  for (uint32_t i = 0; i < in.n_results; ++i)
    size += sizeof(ResultRecord) + pad8(in.results[i].bytes.size());
  return size;
}

void encode(const ExecIn& in, uint8_t* out) {
  ExecRecord fixed = in.fixed;
  fixed.n_results = in.n_results;
  fixed.error_size = static_cast<uint32_t>(in.error.size());
  Out o{out};
  o.put(&fixed, sizeof fixed);
  for (uint32_t i = 0; i < in.n_results; ++i) {
    const ResultIn& r = in.results[i];
    ResultRecord rec{r.index, r.format, r.size, static_cast<uint32_t>(r.bytes.size()), r.in_store};
    o.put(&rec, sizeof rec);
    o.put_padded(r.bytes);
  }
  o.put(in.error.data(), in.error.size());
}

void append(std::string* batch, const SubmitIn& in) { append_record(batch, kSubmit, in); }
void append(std::string* batch, const ExecIn& in) { append_record(batch, kExec, in); }

void append_event(std::string* batch, RecordType type, int64_t time_ns, uint32_t process,
                  std::string_view map) {
  EventRecord e{time_ns, process, static_cast<uint32_t>(map.size())};
  size_t old = batch->size();
  RecordHeader h{static_cast<uint32_t>(sizeof h + sizeof e + map.size()), type, 0};
  batch->resize(old + pad8(h.size));
  Out o{reinterpret_cast<uint8_t*>(batch->data()) + old};
  o.put(&h, sizeof h);
  o.put(&e, sizeof e);
  o.put(map.data(), map.size());
}

bool BatchReader::next(uint16_t* type, std::string_view* payload) {
  if (at_.empty() || corrupt_) return false;
  RecordHeader h;
  if (at_.size() < sizeof h) {
    corrupt_ = true;
    return false;
  }
  std::memcpy(&h, at_.data(), sizeof h);
  if (h.size < sizeof h || pad8(h.size) > at_.size()) {
    corrupt_ = true;
    return false;
  }
  *type = h.type;
  *payload = at_.substr(sizeof h, h.size - sizeof h);
  at_.remove_prefix(pad8(h.size));
  return true;
}

bool decode(std::string_view payload, SubmitView* out) {
  In in{payload};
  out->args.clear();
  if (!in.take(&out->fixed, sizeof out->fixed) || !in.view_padded(out->fixed.name_size, &out->name) ||
      !in.view_padded(out->fixed.method_size, &out->method))
    return false;
  for (uint32_t i = 0; i < out->fixed.n_args; ++i) {
    ArgRecord a;
    std::string_view bytes;
    if (!in.take(&a, sizeof a) || !in.view_padded(a.size, &bytes)) return false;
    if (a.is_ref && bytes.size() != kIdSize) return false;
    out->args.push_back({a.is_ref != 0, a.format, bytes});
  }
  return true;
}

bool decode(std::string_view payload, ExecView* out) {
  In in{payload};
  out->results.clear();
  if (!in.take(&out->fixed, sizeof out->fixed)) return false;
  for (uint32_t i = 0; i < out->fixed.n_results; ++i) {
    ResultView r;
    if (!in.take(&r.fixed, sizeof r.fixed) || !in.view_padded(r.fixed.stored, &r.bytes)) return false;
    out->results.push_back(r);
  }
  return in.view(out->fixed.error_size, &out->error);
}

bool decode(std::string_view payload, EventView* out) {
  In in{payload};
  return in.take(&out->fixed, sizeof out->fixed) && in.view(out->fixed.size, &out->map);
}

}  // namespace ray::lineage
