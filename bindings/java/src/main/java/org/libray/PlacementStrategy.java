package org.libray;

/** How the bundles of a placement group are to lie on the nodes. */
public enum PlacementStrategy {
    /** On few nodes. */
    PACK,
    /** On many nodes. */
    SPREAD,
    /** On one node. */
    STRICT_PACK,
    /** Each on another node. */
    STRICT_SPREAD
}
