"""What programs call and hold: functions, actors, generators, placement, the tables of the cluster. Used in drivers and
workers alike; the runtime is started by whoever needs it first, through the extension (`_libray.ensure`)."""
