"""Processing many images. The modules, from top to bottom:

cluster, distributed    the engine for many machines; one huge image on all of them
runs                    a run: an engine, its inputs and their outcomes
job                     the work on each image, in a form that can be sent to another machine
packed, folders         answers in few large files, or one file per image; the outcome of an image
record, report          the record of a folder; the page that links to its maps
workers                 the engine of one process: a few images at a time
store, locks            where answers are stored, and which process works on which image
inputs                  the images to process
"""
