"""Data: the landscape pairs, the built-in set, and the loader that turns either into batches."""
