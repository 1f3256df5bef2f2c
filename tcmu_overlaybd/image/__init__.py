"""Images and layers as files: what can be done with them without a kernel or a daemon.

``open_image`` (open.py) is the way in for everything that reads or serves an image;
create, commit, import and merge write layer files; export, info and verify read them.
"""
