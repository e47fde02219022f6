package org.libray;

/** Numbers of MessagePack's extension types in values, as docs/api/values.md has them. */
final class Ext {
    static final int TIMESTAMP = -1, REF = 1, ACTOR = 2, TENSOR = 3, ARROW = 4, TUPLE = 16, KEYWORDS = 17;
    /** [name of a type, value]: a value whose Java class matters. Readers of other languages take the value. */
    static final int NAMED = 19;
    /** Java's own serialisation inside of a value: Java alone reads it. */
    static final int JAVA = 32;

    private Ext() {}
}
