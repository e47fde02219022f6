"""The start and the end of the runtime in this process, and what a driver does beside its program: it shows what the
workers print. Workers join by the same module (`start.adopt_worker`)."""
