"""The region of interest: which windows of an image are scored, and which are left out.

`region` combines what the options name: a box, the polygons of a `vector` file, a `mask` (an image, or the
tissue on a slide). `areas` decides which windows lie inside.
"""
