"""What the archive looks like as files.

A `Tree` is the whole drive. It is put together from *views*, the directories of its root; each view
names the *provider* that has its nodes. A new kind of view is a new provider and one line in
`views.py`; nothing in `mount` or in an export changes for it.
"""
