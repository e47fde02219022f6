package org.libray;

import java.util.Map;

/**
 * The options that calls of all kinds have; each method gives the call back. Not thread-safe: one thread makes a call.
 *
 * @param <C> the kind of call
 */
public abstract class CallOptions<C extends CallOptions<C>> {
    Options options;

    CallOptions() {}

    Options options() {
        if (options == null) options = new Options();
        return options;
    }

    @SuppressWarnings("unchecked")
    C self() {
        return (C) this;
    }

    /** A name for people: errors and tools show it. Of an actor: the name under which {@link Ray#getActor} finds it, unique in its namespace. */
    public C setName(String name) {
        options().name = name;
        return self();
    }

    /** Needs that much of a resource ("CPU", "GPU", or the program's own) while it runs. Without any, a task takes one CPU and an actor nothing. */
    public C setResource(String resource, double amount) {
        options().resource(resource, amount);
        return self();
    }

    /** As {@link #setResource} for each entry. */
    public C setResources(Map<String, Double> resources) {
        resources.forEach(this::setResource);
        return self();
    }

    /** The surroundings of the worker: {"env_vars": {...}, "working_dir": ...}. */
    public C setRuntimeEnv(Map<String, ?> env) {
        options().runtimeEnv(env);
        return self();
    }

    /** Runs in that bundle of a placement group; bundle -1 = in any that has room. */
    public C setPlacementGroup(PlacementGroup group, int bundle) {
        options().placement = group;
        options().bundle = bundle;
        return self();
    }

    /** Runs on that node; `soft`: on another one if it is not there. */
    public C setNode(Id node, boolean soft) {
        options().node = node;
        options().soft = soft;
        return self();
    }
}
