"""`ray._private.workers`: programs of workers."""
