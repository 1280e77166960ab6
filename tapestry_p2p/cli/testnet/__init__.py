"""A network of real processes on this machine: planned, run, judged, reported, drawn."""
