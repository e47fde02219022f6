package org.libray;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * How {@link Ray#init(RayConfig)} starts or joins a cluster. Each setter gives the config back. Not thread-safe; read once by init.
 * Most have a system property of the same meaning: ray.address, ray.namespace, ray.num-cpus, ray.store-bytes, ray.jvm-options.
 */
public final class RayConfig {
    private String address = "", namespace = "", sessionParent = "", jobName = "";
    private double numCpus;
    private final Map<String, Object> resources = new LinkedHashMap<>();
    private long storeBytes, spillBytes;
    private int gcsShards;
    private final List<String> jvmOptions = new ArrayList<>();
    private List<String> classPath;
    private final Map<Language, String> code = new java.util.EnumMap<>(Language.class);

    /** All defaults: a private cluster with as many CPUs as this process may use. */
    public RayConfig() {}

    /** What the system properties say, defaults for the rest. */
    public static RayConfig fromProperties() {
        RayConfig config = new RayConfig();
        config.address = System.getProperty("ray.address", "");
        config.namespace = System.getProperty("ray.namespace", "");
        config.numCpus = Double.parseDouble(System.getProperty("ray.num-cpus", "0"));
        config.storeBytes = Long.parseLong(System.getProperty("ray.store-bytes", "0"));
        String options = System.getProperty("ray.jvm-options", "").trim();
        if (!options.isEmpty()) config.jvmOptions.addAll(List.of(options.split("\\s+")));
        return config;
    }

    /** The session directory to join; empty = LIBRAY_ADDRESS in the environment, else a private cluster. */
    public RayConfig setAddress(String address) {
        this.address = address;
        return this;
    }

    /** The namespace of named actors; empty = one of its own. */
    public RayConfig setNamespace(String namespace) {
        this.namespace = namespace;
        return this;
    }

    /** CPUs of the node that is started; 0 = those that this process may use. */
    public RayConfig setNumCpus(double cpus) {
        this.numCpus = cpus;
        return this;
    }

    /** A further resource of the node that is started. */
    public RayConfig setResource(String name, double amount) {
        resources.put(name, amount);
        return this;
    }

    /** Capacity of the object store; 0 = 30 % of the machine's memory. */
    public RayConfig setStoreBytes(long bytes) {
        this.storeBytes = bytes;
        return this;
    }

    /** How much may be spilled to disk; 0 = what the disk holds. */
    public RayConfig setSpillBytes(long bytes) {
        this.spillBytes = bytes;
        return this;
    }

    /** Shards of the control store; 0 = 2. */
    public RayConfig setGcsShards(int shards) {
        this.gcsShards = shards;
        return this;
    }

    /** The folder that the session's directory is made in. */
    public RayConfig setSessionDir(String parent) {
        this.sessionParent = parent;
        return this;
    }

    /** A name for people and tools. */
    public RayConfig setJobName(String name) {
        this.jobName = name;
        return this;
    }

    /** Options of the workers' JVMs, such as -Xmx2g; later ones win over libray's own. */
    public RayConfig addJvmOptions(String... options) {
        jvmOptions.addAll(List.of(options));
        return this;
    }

    /** The workers' class path instead of this process's. libray's own jars are added. */
    public RayConfig setClassPath(List<String> entries) {
        this.classPath = List.copyOf(entries);
        return this;
    }

    /**
     * Where workers of another language find their code, for calls by name: of Python the folders of its modules (with a colon between
     * them); of C++ and Rust the program. Without it: LIBRAY_PYTHON_CODE, LIBRAY_NATIVE_CODE, LIBRAY_RUST_CODE in the environment.
     */
    public RayConfig setCode(Language language, String place) {
        code.put(language, place);
        return this;
    }

    void giveCode(Session session) {
        code.forEach((language, place) -> {
            Frame frame = Frame.mine().begin();
            frame.putText(place);
            frame.check(Native.workerCode(session.runtime, language.ordinal(), frame.address()));
        });
    }

    /** As init in runtime.cc reads it. */
    void write(Frame frame) {
        byte[] packed = Session.messagePack(resources);
        List<String> command = WorkerCommand.of(classPath, jvmOptions);
        frame.putText(address).putText(namespace).putText(sessionParent).putDouble(numCpus).putBytes(packed);
        frame.putLong(storeBytes).putLong(spillBytes).putInt(gcsShards).putInt(Native.LANG_JAVA).putText(jobName);
        frame.putLong(command.size());
        for (String word : command) frame.putWord(word);
    }
}
