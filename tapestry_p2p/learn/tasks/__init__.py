"""The tasks that come with the package, one a file. Imports nothing."""
