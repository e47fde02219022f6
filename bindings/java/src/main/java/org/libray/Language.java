package org.libray;

/** What a function or an actor is written in. */
public enum Language {
    /** C, C++ and any symbol of a shared library. */
    NATIVE,
    /** Python. */
    PYTHON,
    /** Java. */
    JAVA,
    /** Rust. */
    RUST
}
