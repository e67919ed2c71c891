"""FUSE requests answered from nodes: the only package that knows pyfuse3 and trio.

`session` mounts and unmounts and `options` reads `-o`: both without loading pyfuse3. `drive` runs one
mounted drive; `operations` answers its requests from a `vfs.Tree`; `watch` tells the kernel of changes.
"""
