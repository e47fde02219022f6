"""A worker process: what runs around the extension's loop. Imported by the warm process that workers are forked from
(`libray/_zygote.py`), never by a driver."""
