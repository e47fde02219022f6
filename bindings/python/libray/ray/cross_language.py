"""`ray.cross_language`: functions and actor classes of other languages by their names."""

from libray.api.foreign import actor_class, function

__all__ = ["cpp_actor_class", "cpp_function", "java_actor_class", "java_function"]


def java_function(class_name, function_name):
    """The static method of a Java class, with `.remote(...)` and `.options(...)`."""
    return function("java", class_name, function_name)


def cpp_function(function_name):
    """The function that the C++ (or C) program of this job registered under that name."""
    return function("cpp", function_name)


def java_actor_class(class_name):
    """The Java class as an actor class."""
    return actor_class("java", class_name)


def cpp_actor_class(create_function_name, class_name):
    """The actor class that the C++ (or C) program of this job registered. Ray names its factory function, "Counter::Create"
    or "RAY_FUNC(Counter::Create)", and the class; here the class alone counts."""
    return actor_class("cpp", class_name)
