"""`ray.cross_language`: libray calls C symbols and native workers; there is no Java here."""

from libray import native_function


def cpp_function(function_name):
    """The function that native workers registered under this name."""
    return native_function(function_name)


def java_function(class_name, function_name):
    raise NotImplementedError(
        "libray does not run Java functions from Python: use libray.native_function or libray.c_function"
    )


def java_actor_class(class_name):
    raise NotImplementedError(
        "libray does not run Java actors from Python: write the actor in Python, or call native code with "
        "libray.native_function"
    )
