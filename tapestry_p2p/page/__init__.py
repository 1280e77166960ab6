"""The page in the browser: a process of its own that asks the daemon as any other verb does."""
