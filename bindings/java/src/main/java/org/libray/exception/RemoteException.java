package org.libray.exception;

/**
 * Stands for an exception of another process that could not be brought here as itself: one of another language, or one of Java
 * that cannot be serialised or whose class is not on this class path. Its stack trace is the remote one as far as it has Java's
 * form; {@link #stack} is the whole text.
 */
public class RemoteException extends RuntimeException {
    private static final long serialVersionUID = 1;
    /** See the accessors of the same names. */
    private final String language, typeName, stack;

    /** For libray itself. */
    public RemoteException(String language, String typeName, String message, String stack, Throwable cause) {
        super(typeName + ": " + message, cause);
        this.language = language;
        this.typeName = typeName;
        this.stack = stack;
    }

    /** "java", "python", "rust" or "native". */
    public String language() {
        return language;
    }

    /** The name of the exception's class, or what the language has in its place. */
    public String typeName() {
        return typeName;
    }

    /** The remote stack trace or backtrace, several lines; empty when there is none. */
    public String stack() {
        return stack;
    }
}
