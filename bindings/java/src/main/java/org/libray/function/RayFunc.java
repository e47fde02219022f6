package org.libray.function;

import java.io.Serializable;

/** What can run elsewhere: a method reference or a lambda. Variables that a lambda captures must be serialisable; they are sent with each call. */
public interface RayFunc extends Serializable {}
