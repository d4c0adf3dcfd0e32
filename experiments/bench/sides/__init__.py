"""One file a library: functions that take a case's settings and give a `Side`. Each is imported only by a worker."""
