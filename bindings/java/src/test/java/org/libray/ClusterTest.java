package org.libray;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.libray.exception.RayException;

class ClusterTest extends Cluster {
    static String environment(String name) {
        return System.getenv(name);
    }

    static int one() {
        return 1;
    }

    private static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    @Test
    void keysAndValues() {
        KeyValue kv = Ray.kv("test");
        assertEquals(Optional.empty(), kv.get(bytes("a")));
        long v1 = kv.put(bytes("a"), bytes("one"), 0);
        assertArrayEquals(bytes("one"), kv.get(bytes("a")).orElseThrow().value());
        assertEquals(v1, kv.get(bytes("a")).orElseThrow().version());
        long v2 = kv.put(bytes("a"), bytes("two"), v1);
        assertTrue(v2 > v1);
        assertEquals("CONFLICT", assertThrows(RayException.class, () -> kv.put(bytes("a"), bytes("three"), v1)).codeName());
        kv.put(bytes("ab"), new byte[100_000], KeyValue.ANY);
        assertEquals(100_000, kv.get(bytes("ab")).orElseThrow().value().length);
        assertEquals(2, kv.list(bytes("a")).size());
        kv.delete(bytes("a"), v2);
        assertEquals(Optional.empty(), kv.get(bytes("a")));
    }

    @Test
    void placementGroups() {
        PlacementGroup group = Ray.createPlacementGroup(List.of(Map.of("CPU", 1.0), Map.of("CPU", 1.0)), PlacementStrategy.PACK);
        assertTrue(group.wait(30));
        assertEquals(1, Ray.task(ClusterTest::one).setPlacementGroup(group, 1).remote().get());
        PlacementGroup tooMuch = Ray.createPlacementGroup(List.of(Map.of("CPU", 1000.0)), PlacementStrategy.STRICT_PACK);
        assertFalse(tooMuch.wait(0));
        ObjectRef<Integer> waits = Ray.task(ClusterTest::one).setPlacementGroup(tooMuch, 0).remote();
        Ray.removePlacementGroup(tooMuch);
        assertEquals("GROUP_REMOVED", assertThrows(RayException.class, waits::get).codeName());
        Ray.removePlacementGroup(group);
        assertEquals(group, Ray.put(group).get());
    }

    @Test
    void resourcesAndSurroundings() {
        assertEquals(2.0, ((Number) ((Map<?, ?>) Ray.query("resources")).get("disk")).doubleValue());
        assertEquals(1, Ray.task(ClusterTest::one).setResource("disk", 1).setResource("CPU", 0.5).remote().get());
        assertEquals("yes", Ray.task(ClusterTest::environment, "SAID").setRuntimeEnv(Map.of("env_vars", Map.of("SAID", "yes"))).remote().get());
        assertEquals(1, Ray.task(ClusterTest::one).setNode(Ray.getRuntimeContext().getNodeId(), false).remote().get());
        List<?> nodes = (List<?>) Ray.query("nodes");
        assertEquals(1, nodes.size());
    }

    @Test
    void afterShutdownReferencesSaySo() {
        ObjectRef<Integer> ref = Ray.put(1);
        Ray.shutdown();
        assertThrows(IllegalStateException.class, ref::get);
        assertFalse(Ray.isInitialized());
        start();
        assertThrows(RayException.class, ref::get, "of another session");
        assertEquals(1, Ray.task(ClusterTest::one).remote().get(), "functions survive");
    }

    @Test
    void idsAreValues() {
        ObjectRef<Integer> ref = Ray.put(1);
        Id id = ref.getId();
        assertEquals(id, Id.fromHex(id.toString()));
        assertEquals(48, id.toString().length());
        assertTrue(Id.NIL.isNil());
        assertThrows(IllegalArgumentException.class, () -> Id.fromHex("00"));
    }
}
