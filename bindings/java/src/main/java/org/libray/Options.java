package org.libray;

import java.util.LinkedHashMap;
import java.util.Map;

/** Options of a task, call or actor; which of them are looked at is the caller's. Not shared between threads. */
final class Options {
    String name = "", ns = "";
    Map<String, Object> resources;
    int retries = -2, results = 1, window, flags, group;
    PlacementGroup placement;
    int bundle = -1;
    Id node;
    boolean soft;
    // of actors
    int restarts, concurrency, lifetime, pending;

    void resource(String resource, double amount) {
        if (resources == null) resources = new LinkedHashMap<>();
        resources.put(resource, amount);
    }

    void runtimeEnv(Map<String, ?> env) {
        if (resources == null) resources = new LinkedHashMap<>();
        resources.put("runtime_env", env);
    }

    /** As TaskOptions in calls.cc reads it. */
    void write(Frame frame) {
        byte[] packed = Session.messagePack(resources);
        frame.putLong(1).putText(name).putBytes(packed);
        frame.putInt(retries).putInt(results).putInt(window).putInt(flags).putInt(group).putInt(0);
        writePlacement(frame);
    }

    /** As ActorOptions in calls.cc reads it. */
    void writeActor(Frame frame, byte[] metadata) {
        byte[] packed = Session.messagePack(resources);
        frame.putText(name).putBytes(packed).putBytes(metadata).putText(ns);
        frame.putInt(restarts).putInt(retries).putInt(concurrency).putInt(lifetime).putInt(pending).putInt(flags);
        writePlacement(frame);
    }

    private void writePlacement(Frame frame) {
        if (placement == null && node == null) {
            frame.putLong(0);
            return;
        }
        frame.putLong(1).putId(placement == null ? Id.NIL : placement.getId()).putInt(bundle).putInt(soft ? 1 : 0).putId(node);
    }
}
