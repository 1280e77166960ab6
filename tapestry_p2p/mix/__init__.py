"""numpy, pure: codecs, public copies, robust rules, the Loom round, topology."""
