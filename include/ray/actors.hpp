// actors.hpp -- part of ray.hpp: RAY_ACTOR, ray::actor and typed calls of methods. An actor is an
// object of a class of this program that lives in a worker of its own; its calls run one after the
// other, unless max_concurrency says otherwise.
//
// Thread: handles from any. The object is made, called and destroyed on the thread that serves its
// worker; with a max_concurrency of n it is called on that and n - 1 more, which are gone when it
// is destroyed.
#pragma once
#include "remote.hpp"

namespace ray {

/// What an actor is to be: ray::actor<Counter>({.name = "counter", .detached = true}, 0).
struct actor_options {
  std::string name{};                          ///< others find it by ray::find_actor; empty = nobody does
  std::string ns{};                            ///< namespace of the name; empty = the runtime's
  ray::resources resources{};                  ///< held for its life; empty = nothing while it does not run
  int max_restarts = 0;                        ///< -1 = without end
  int max_task_retries = RAY_RETRIES_DEFAULT;  ///< of calls that are lost to a restart
  uint32_t max_concurrency = 1;    ///< calls that run at once, on threads: then the object has to be thread-safe
  uint32_t max_pending_calls = 0;  ///< over it: ray::unavailable; 0 = no limit
  bool detached = false;           ///< ends when it is killed, not with its last handle
  bool get_if_exists = false;      ///< the actor of that name if there is one already
  bool out_of_order = false;       ///< a call whose arguments are there overtakes those that wait for theirs
  std::optional<placement> place{};
  ray::runtime_env env{};
};

namespace detail {

template <class C>
struct class_tag {};
template <class Sig>
struct class_of {  // RAY_ACTOR(Counter, ...)
  using type = Sig;
  using parameters = std::tuple<>;
};
template <class C, class... P>
struct class_of<C(P...)> {  // RAY_ACTOR(Counter(int), ...)
  using type = C;
  using parameters = std::tuple<P...>;
};
// What RAY_ACTOR declares for the compiler: ray_class_info(class_tag<C>) -> class_of<Sig>.
template <class Sig, auto... M>
using class_info = class_of<Sig>;
template <class Sig, auto... M>
using tag_for = class_tag<typename class_of<Sig>::type>;
template <class C, class = void>
struct info_of {
  static_assert(never<C>,
                "ray: RAY_ACTOR(Class(constructor's parameters), &Class::method...) is missing, or "
                "not visible here, or not in "
                "the namespace of the class");
};
template <class C>
struct info_of<C, std::void_t<decltype(ray_class_info(class_tag<C>()))>> {
  using parameters = typename decltype(ray_class_info(class_tag<C>()))::parameters;
};

struct method_entry : registration {
  const registration* klass = nullptr;
  ray_task_fn run = nullptr;
};

template <class C, class R, class B>
constexpr bool is_method(R B::*) {
  return std::is_base_of_v<B, C>;
}
template <class C, class M>
constexpr bool is_method_of() {
  if constexpr (std::is_void_v<C>)
    return false;  // call_named is for those
  else
    return is_method<C>(M());
}

// The registered methods of C with one type of member pointer.
template <class C, class M>
std::vector<std::pair<M, method_entry*>>& methods_of() {
  static std::vector<std::pair<M, method_entry*>> table;
  return table;
}
inline failure announce_method(registration* r) {
  auto* e = static_cast<method_entry*>(r);
  ray_error* err = nullptr;
  ray_code code = ray_register_method(str(e->klass->name), str(e->name), e->run, e, &err);
  return made(code, err);
}

struct class_info_entry : function_entry {
  std::vector<method_entry*> methods;
};
template <class C>
class_info_entry& class_entry() {
  static class_info_entry e;
  return e;
}

// A further thread of an actor: takes calls as ray_worker_run does on the first.
inline void lend_a_hand(ray_runtime* rt, const class_info_entry* klass) {
  for (;;) {
    ray_task* task = nullptr;
    if (ray_worker_next(rt, -1, &task, nullptr) != RAY_OK) return;  // the actor ends
    ray_task_info info = RAY_TASK_INFO_INIT;
    (void)ray_task_get_info(task, &info);
    ray_code code = RAY_UNKNOWN_FUNCTION;
    method_entry* found = nullptr;
    for (method_entry* m : klass->methods)
      if (m->name == view(info.method)) found = m;
    if (found)
      code = found->run(task, found);
    else
      (void)ray_task_fail(
          task, str("class " + klass->name + " has no method " + std::string(view(info.method)) + " in its RAY_ACTOR"),
          nullptr);
    (void)ray_task_finish(task, code);
  }
}
inline void start_hands(ray_task* task, const class_info_entry* klass) {
  ray_task_info info = RAY_TASK_INFO_INIT;
  (void)ray_task_get_info(task, &info);
  ray_runtime* rt = ray_task_runtime(task);
  for (uint32_t i = 1; i < info.max_concurrency; ++i) more_hands().add([rt, klass] { lend_a_hand(rt, klass); });
}
template <class C, class... P>
failure construct(ray_task* task, std::tuple<P...>*) {
  std::unique_ptr<C> object;
  if constexpr (is_dynamic<P...>::value) {
    call c(task);
    object = std::make_unique<C>(c);
  } else {
    static_assert((good_parameter<P>() && ...));
    arguments<P...> a(task);
    if (failure f = a.read()) return f;
    object = a.apply([](auto&&... p) { return std::make_unique<C>(static_cast<decltype(p)>(p)...); });
  }
  ray_error* err = nullptr;
  ray_code code = ray_task_set_self(task, object.get(), &err);
  if (code == RAY_OK) {
    (void)object.release();
    start_hands(task, &class_entry<C>());
  }
  return made(code, err);
}
template <class Sig>
ray_code create_actor(ray_task* task, void* user) {
  using info = class_of<Sig>;
  return run_guarded(task, *static_cast<function_entry*>(user), [&] {
    return construct<typename info::type>(task, static_cast<typename info::parameters*>(nullptr));
  });
}
template <class C>
void destroy_actor(void* self, void*) {
  more_hands().join();
  RAY_TRY_BLOCK { delete static_cast<C*>(self); }
  RAY_CATCH(...) { std::fprintf(stderr, "ray: the destructor of an actor threw\n"); }
}
template <class C>
failure announce_class(registration* r) {
  auto* e = static_cast<function_entry*>(r);
  ray_error* err = nullptr;
  ray_code code = ray_register_actor(str(e->name), e->run, destroy_actor<C>, e, &err);
  return made(code, err);
}

// A member function as a call: plain type of its pointer, result, parameters.
template <class M>
struct member;
template <class R, class B, class... P>
struct member<R (B::*)(P...)> {
  using type = R (B::*)(P...);
  using run = invoker<R, P...>;
  using result = R;
};
template <class R, class B, class... P>
struct member<R (B::*)(P...) const> {
  using type = R (B::*)(P...) const;
  using run = invoker<R, P...>;
  using result = R;
};
template <class R, class B, class... P>
struct member<R (B::*)(P...) noexcept> : member<R (B::*)(P...)> {};
template <class R, class B, class... P>
struct member<R (B::*)(P...) const noexcept> : member<R (B::*)(P...) const> {};

template <class C, auto M>
method_entry& method_slot() {
  static method_entry e;
  return e;
}
template <class C, auto M>
ray_code run_method(ray_task* task, void* user) {
  using m = member<decltype(M)>;
  const auto* entry = static_cast<method_entry*>(user);
  C* self = static_cast<C*>(ray_task_self(task));
  return run_guarded(task, *entry, [&] {
    return m::run::run(
        task, [self](auto&&... p) -> typename m::result { return (self->*M)(static_cast<decltype(p)>(p)...); });
  });
}
template <class C, auto M>
void register_method(const std::string& text, const char* file, int line) {
  using type = typename member<decltype(M)>::type;
  method_entry& e = method_slot<C, M>();
  const size_t colons = text.rfind("::");  // "&Counter::add": the method's own name is enough within its class
  std::string name = colons == std::string::npos ? text : text.substr(colons + 2);
  while (!name.empty() && (name.back() == ')' || name.back() == ' ')) name.pop_back();
  e.klass = &class_entry<C>();
  e.run = run_method<C, M>;
  e.announce = announce_method;
  e.title = e.klass->name + "::" + name;
  remember(&e, std::move(name), file, line);
  methods_of<C, type>().emplace_back(M, &e);
  class_entry<C>().methods.push_back(&e);
}
template <class Sig, auto... M>
bool register_class(std::string_view names, const char* file, int line) {
  using C = typename class_of<Sig>::type;
  const std::vector<std::string> each = split_names(names);
  class_info_entry& e = class_entry<C>();
  e.run = create_actor<Sig>;
  e.announce = announce_class<C>;
  const std::string name = each[0].substr(0, each[0].find('('));
  e.title = "constructor of " + name;
  remember(&e, name, file, line);
  size_t i = 1;
  (register_method<C, M>(i < each.size() ? each[i++] : std::string(), file, line), ...);
  return true;
}

class packed_actor_options {
 public:
  packed_actor_options(const actor_options& o, const std::string& klass)
      : resources_(pack_resources(o.resources, o.env, false)) {
    pack_map(metadata_, 2);
    for (std::string_view text :
         {std::string_view("language"), std::string_view("native"), std::string_view("class"), std::string_view(klass)})
      pack_text(metadata_, text);
    raw.name = str(o.name);
    raw.ns = str(o.ns);
    raw.resources_msgpack = {resources_.data(), resources_.size()};
    raw.max_restarts = o.max_restarts;
    raw.max_task_retries = o.max_task_retries;
    raw.max_concurrency = o.max_concurrency;
    raw.max_pending_calls = o.max_pending_calls;
    raw.lifetime = o.detached ? RAY_LIFETIME_DETACHED : RAY_LIFETIME_COUNTED;
    raw.flags = flag_if(o.get_if_exists, RAY_ACTOR_GET_IF_EXISTS) | flag_if(o.out_of_order, RAY_ACTOR_OUT_OF_ORDER);
    raw.metadata = {metadata_.data(), metadata_.size()};
    if (o.place) {
      placement_ = pack_placement(*o.place);
      raw.placement = &placement_;
    }
  }
  packed_actor_options(const packed_actor_options&) = delete;
  packed_actor_options& operator=(const packed_actor_options&) = delete;
  ray_actor_options raw = RAY_ACTOR_OPTIONS_INIT;

 private:
  std::string resources_;
  bytes_out metadata_;
  ray_placement placement_ = RAY_PLACEMENT_INIT;
};

}  // namespace detail

/// A handle of an actor of class C: counted, can be copied and sent to tasks. The last one ends an
/// actor that is not detached, after its pending calls. actor_handle<void>: of a class that this
/// program does not know; see call_named.
template <class C>
class actor_handle {
 public:
  actor_handle() = default;
  /// Takes over a count of an actor of ray.h.
  explicit actor_handle(ray_actor* owned) noexcept : h_(owned) {}

  /// counter.call(&Counter::add, 1): a reference to the result (of a generator, a stream).
  template <class R, class B, class... P, class... A>
  auto call(R (B::*m)(P...), A&&... a) const {
    return call_one<R, P...>(m, nullptr, std::forward<A>(a)...).value();
  }
  template <class R, class B, class... P, class... A>
  auto call(R (B::*m)(P...) const, A&&... a) const {
    return call_one<R, P...>(m, nullptr, std::forward<A>(a)...).value();
  }
  /// counter.call({.max_retries = 3}, &Counter::add, 1).
  template <class R, class B, class... P, class... A>
  auto call(const task_options& o, R (B::*m)(P...), A&&... a) const {
    return call_one<R, P...>(m, &o, std::forward<A>(a)...).value();
  }
  template <class R, class B, class... P, class... A>
  auto call(const task_options& o, R (B::*m)(P...) const, A&&... a) const {
    return call_one<R, P...>(m, &o, std::forward<A>(a)...).value();
  }
  /// The same without exceptions.
  template <class R, class B, class... P, class... A>
  auto call_result(R (B::*m)(P...), A&&... a) const {
    return call_one<R, P...>(m, nullptr, std::forward<A>(a)...);
  }
  template <class R, class B, class... P, class... A>
  auto call_result(R (B::*m)(P...) const, A&&... a) const {
    return call_one<R, P...>(m, nullptr, std::forward<A>(a)...);
  }
  /// A method by name: handle.call_named<int(int)>("add", 1). The types are yours to say.
  template <class Signature, class... A>
  auto call_named(std::string_view method, A&&... a) const {
    return named(static_cast<Signature*>(nullptr), method, std::forward<A>(a)...).value();
  }

  /// A method of any arguments and results, void (C::*)(ray::call&): see ray::submit.
  template <class T, class B>
  result<std::vector<ref<T>>> submit_result(void (B::*m)(ray::call&), const std::vector<argument>& args,
                                            uint32_t num_returns = 1, const task_options& options = {}) const {
    const std::string* name = name_of(m);
    if (!name) return not_registered();
    return detail::submit_dynamic<T>(
        args, num_returns, options,
        [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_ref** refs, ray_error** err) {
          return ray_actor_call(h_.get(), detail::str(*name), a, n, o, refs, err);
        });
  }
  template <class T, class B>
  result<stream<T>> submit_stream_result(void (B::*m)(ray::call&), const std::vector<argument>& args,
                                         const task_options& options = {}) const {
    const std::string* name = name_of(m);
    if (!name) return not_registered();
    return detail::submit_dynamic_stream<T>(
        args, options, [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_stream** s, ray_error** err) {
          return ray_actor_call_stream(h_.get(), detail::str(*name), a, n, o, s, err);
        });
  }

  /// The same of a method by its name, of a class of any language.
  template <class T>
  result<std::vector<ref<T>>> submit_result(std::string_view method, const std::vector<argument>& args,
                                            uint32_t num_returns = 1, const task_options& options = {}) const {
    return detail::submit_dynamic<T>(
        args, num_returns, options,
        [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_ref** refs, ray_error** err) {
          return ray_actor_call(h_.get(), detail::str(method), a, n, o, refs, err);
        });
  }
  template <class T>
  result<stream<T>> submit_stream_result(std::string_view method, const std::vector<argument>& args,
                                         const task_options& options = {}) const {
    return detail::submit_dynamic_stream<T>(
        args, options, [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_stream** s, ray_error** err) {
          return ray_actor_call_stream(h_.get(), detail::str(method), a, n, o, s, err);
        });
  }

  /// Kills the actor's process at once.
  void kill(bool may_restart = false) const { kill_result(may_restart).value(); }
  result<void> kill_result(bool may_restart = false) const {
    ray_error* err = nullptr;
    ray_code code = ray_actor_kill(h_.get(), may_restart, &err);
    return detail::made(code, err);
  }
  ray::id id() const { return {ray_actor_id(h_.get())}; }
  ray_actor* raw() const noexcept { return h_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(h_); }

 private:
  template <class R, class... P, class M, class... A>
  auto call_one(M m, const task_options* o, A&&... a) const -> result<typename detail::answer_of<R, P...>::type> {
    static_assert(detail::is_method_of<C, M>(), "ray: this is not a method of this actor's class");
    const std::string* name = name_of(m);
    if (__builtin_expect(!name, 0)) return not_registered();
    return submit<R, P...>(*name, o, std::forward<A>(a)...);
  }
  template <class M>
  static const std::string* name_of(M m) {
    for (const auto& [pointer, entry] : detail::methods_of<C, M>())
      if (pointer == m) return &entry->name;
    return nullptr;
  }
  static failure not_registered() {
    return failure(RAY_INVALID_ARGUMENT, "this method is not registered: name it in RAY_ACTOR(...)");
  }
  template <class R, class... P, class... A>
  auto named(R (*)(P...), std::string_view method, A&&... a) const {
    return submit<R, P...>(method, nullptr, std::forward<A>(a)...);
  }
  template <class R, class... P, class... A>
  auto submit(std::string_view method, const task_options* o,
              A&&... a) const -> result<typename detail::answer_of<R, P...>::type> {
    using answer = detail::answer_of<R, P...>;
    typename answer::type out;
    std::optional<detail::packed_options> packed;
    if (o) packed.emplace(*o);
    const ray_task_options* raw = packed ? &packed->raw : nullptr;
    failure f = detail::packer_for<typename detail::shape_of<R, P...>::parameters>::pack(
        std::is_void_v<C>,
        [&](const ray_arg* args, size_t n) {
          ray_error* err = nullptr;
          ray_code code;
          if constexpr (answer::is_stream) {
            ray_stream* s = nullptr;
            code = ray_actor_call_stream(h_.get(), detail::str(method), args, n, raw, &s, &err);
            if (code == RAY_OK) out = typename answer::type(s);
          } else {
            ray_ref* r = nullptr;
            code = ray_actor_call(h_.get(), detail::str(method), args, n, raw, &r, &err);
            if (code == RAY_OK) out = typename answer::type(r);
          }
          return detail::made(code, err);
        },
        std::forward<A>(a)...);
    if (f) return f;
    return out;
  }
  detail::actor_ref h_;
};

namespace detail {
template <class C, class Parameters, class... A>
result<actor_handle<C>> make_actor(ray_function* klass, const std::string& name, const actor_options& o, A&&... a) {
  const packed_actor_options options(o, name);
  ray_actor* out = nullptr;
  failure f = packer_for<Parameters>::pack(
      std::is_void_v<C>,
      [&](const ray_arg* args, size_t n) {
        return with_runtime([&](ray_runtime* rt, ray_error** err) {
          return ray_actor_create(rt, klass, args, n, &options.raw, &out, err);
        });
      },
      std::forward<A>(a)...);
  if (f) return f;
  return actor_handle<C>(out);
}
}  // namespace detail

template <class C, class... A>
result<actor_handle<C>> actor_result(const actor_options& options, A&&... args) {
  detail::function_entry& e = detail::class_entry<C>();
  ray_function* klass = nullptr;
  if (failure f = e.resolve(&klass)) return f;
  return detail::make_actor<C, typename detail::info_of<C>::parameters>(klass, e.name, options,
                                                                        std::forward<A>(args)...);
}
namespace detail {
template <class C>
result<actor_handle<C>> create_dynamic(ray_function* klass, const std::string& name, const std::vector<argument>& args,
                                       const actor_options& o) {
  const packed_actor_options options(o, name);
  std::vector<ray_arg> raw;
  for (const argument& a : args) {
    if (a.problem()) return a.problem();
    raw.push_back(a.raw());
  }
  ray_actor* out = nullptr;
  if (failure f = with_runtime([&](ray_runtime* rt, ray_error** err) {
        return ray_actor_create(rt, klass, raw.data(), raw.size(), &options.raw, &out, err);
      }))
    return f;
  return actor_handle<C>(out);
}
}  // namespace detail
/// An actor whose constructor takes any arguments, C(ray::call&): see ray::submit.
template <class C>
result<actor_handle<C>> submit_actor_result(const std::vector<argument>& args, const actor_options& o = {}) {
  detail::class_info_entry& e = detail::class_entry<C>();
  ray_function* klass = nullptr;
  if (failure f = e.resolve(&klass)) return f;
  return detail::create_dynamic<C>(klass, e.name, args, o);
}
/// An actor of a class of any language by its name.
inline result<actor_handle<void>> submit_actor_result(const named& which, const std::vector<argument>& args,
                                                      const actor_options& o = {}) {
  detail::function_ref klass;
  if (failure f = detail::resolve_named(which, &klass)) return f;
  return detail::create_dynamic<void>(klass.get(), which.name, args, o);
}
/// ray::actor<Counter>(0): an object of a class of RAY_ACTOR in a worker of its own. Returns at
/// once; what the constructor throws shows in the first call, as ray::actor_died.
template <class C, class... A>
actor_handle<C> actor(A&&... args) {
  return actor_result<C>(actor_options(), std::forward<A>(args)...).value();
}
/// ray::actor<Counter>({.name = "counter"}, 0). With a name it waits until that is taken.
template <class C, class... A>
actor_handle<C> actor(const actor_options& options, A&&... args) {
  return actor_result<C>(options, std::forward<A>(args)...).value();
}
template <class C, class... A>
actor_handle<C> actor(actor_options& options, A&&... args) {
  return actor_result<C>(options, std::forward<A>(args)...).value();
}
template <class C, class... A>
actor_handle<C> actor(actor_options&& options, A&&... args) {
  return actor_result<C>(options, std::forward<A>(args)...).value();
}
/// A class of another language, or of another native program, by its name:
/// ray::actor_of_class(ray::language::python, "collections", "Counter", {}, text).
template <class... A>
actor_handle<void> actor_of_class(language where, std::string_view container, const std::string& name,
                                  const actor_options& options, A&&... args) {
  ray_function* f = nullptr;
  detail::raise_if(detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_function_named(rt, static_cast<int32_t>(where), detail::str(container), detail::str(name), &f, err);
  }));
  detail::function_ref klass(f);
  return detail::make_actor<void, std::tuple<detail::stored_t<A>...>>(f, name, options, std::forward<A>(args)...)
      .value();
}

template <class C>
result<actor_handle<C>> find_actor_result(std::string_view name, std::string_view ns = {}) {
  ray_actor* a = nullptr;
  if (failure f = detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
        return ray_actor_find(rt, detail::str(name), detail::str(ns), &a, err);
      }))
    return f;
  actor_handle<C> out(a);
  if constexpr (!std::is_void_v<C>) {
    ray_bytes data = RAY_BYTES_INIT;
    ray_error* err = nullptr;
    if (ray_code code = ray_actor_metadata(a, &data, &err)) return failure(code, err);
    const std::string is = detail::text_in_map(detail::view(data), "class"), &want = detail::class_entry<C>().name;
    if (is != want || detail::text_in_map(detail::view(data), "language") != "native")
      return detail::of_wrong_type("actor \"" + std::string(name) + "\" is of class " +
                                   (is.empty() ? "(another language's)" : is) + ", not " + want);
  }
  return out;
}
/// A living actor by its name: ray::find_actor<Counter>("counter"). Throws ray::not_found,
/// ray::wrong_type.
template <class C>
actor_handle<C> find_actor(std::string_view name, std::string_view ns = {}) {
  return find_actor_result<C>(name, ns).value();
}

/// In a method of an actor: a handle of the actor itself.
template <class C>
actor_handle<C> self() {
  ray_actor* a = nullptr;
  detail::raise_if(
      detail::with_runtime([&](ray_runtime* rt, ray_error** err) { return ray_worker_actor(rt, &a, err); }));
  return actor_handle<C>(a);
}
/// In a method of an actor: it ends after this call; its destructor runs.
inline void exit_actor(std::string_view why = {}) {
  detail::raise_if(detail::with_runtime(
      [&](ray_runtime* rt, ray_error** err) { return ray_worker_exit(rt, detail::str(why), err); }));
}

namespace detail {
template <class C>
failure handle_of(const source& s, const item& i, std::optional<actor_handle<C>>& out) {
  ray_ref* r = nullptr;
  if (failure f = reference_of(s, i, 2, &r)) return f;
  ref_handle kept(r);
  ray_actor* a = nullptr;
  ray_error* err = nullptr;
  ray_code code = ray_actor_from_ref(r, &a, &err);
  if (code == RAY_OK) out.emplace(a);
  return made(code, err);
}
template <class C>
struct codec<actor_handle<C>> {
  static void encode(encoder& e, const actor_handle<C>& a) {
    if (!a) return e.fail(failure(RAY_INVALID_ARGUMENT, "an empty ray::actor_handle cannot be sent"));
    pack_reference(e.bytes, 2, e.add_actor(a.raw()));
  }
  static failure decode(source& s, std::optional<actor_handle<C>>& out) { return handle_of(s, only_item(s), out); }
};
}  // namespace detail
}  // namespace ray

#if defined(RAY_HAS_EXCEPTIONS)
// ray::actor_handle inside of containers and structs.
namespace msgpack {
MSGPACK_API_VERSION_NAMESPACE(MSGPACK_DEFAULT_API_NS) {
  namespace adaptor {
  template <class C>
  struct pack<ray::actor_handle<C>> {
    template <class Stream>
    msgpack::packer<Stream>& operator()(msgpack::packer<Stream>& p, const ray::actor_handle<C>& a) const {
      ray::detail::encoder* e = ray::detail::t_encoder;
      if (!e)
        throw ray::wrong_state(
            ray::failure(RAY_WRONG_STATE, "a ray::actor_handle is packed outside of a value of ray"));
      ray::detail::codec<ray::actor_handle<C>>::encode(*e, a);
      return p;
    }
  };
  template <class C>
  struct convert<ray::actor_handle<C>> {
    const msgpack::object& operator()(const msgpack::object& o, ray::actor_handle<C>& out) const {
      ray::detail::source* s = ray::detail::t_source;
      if (o.type != msgpack::type::EXT || !s) throw msgpack::type_error();
      ray::detail::item i;
      i.what = ray::detail::kind::ext;
      i.ext_type = o.via.ext.type();
      i.bytes = {o.via.ext.data(), o.via.ext.size};
      std::optional<ray::actor_handle<C>> a;
      if (ray::failure f = ray::detail::handle_of(*s, i, a)) ray::detail::raise(std::move(f));
      out = std::move(*a);
      return o;
    }
  };
  }  // namespace adaptor
}
}  // namespace msgpack
#endif

/// RAY_ACTOR(Counter(int64_t), &Counter::add, &Counter::total): objects of this class can be
/// actors; Counter(int64_t) is the constructor that ray::actor<Counter>(...) calls, and these are
/// the methods that handles can call. In the class's own namespace, once, with the class visible.
#define RAY_ACTOR(...)                                                                                                 \
  [[maybe_unused]] inline ::ray::detail::class_info<__VA_ARGS__> ray_class_info(::ray::detail::tag_for<__VA_ARGS__>) { \
    return {};                                                                                                         \
  }                                                                                                                    \
  RAY_ONCE(ray_actor_) = ::ray::detail::register_class<__VA_ARGS__>(#__VA_ARGS__, __FILE__, __LINE__)
