"""A process that makes files of the cache for another."""
