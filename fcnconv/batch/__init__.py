"""Many images, from top to bottom:

cluster, spread     the engine that works on many machines; one huge image on all of them
runs                a run: an engine over the inputs, and what came of it
job                 what is done with each image, so that it can be sent elsewhere
packed, folder      answers in few large files, or each in a file of its own
record, report      what a folder tells of itself; the page that leads to its maps
workers             the engine of one process: a few images at a time
store, claims       where answers lie, and who works on which
inputs, made        images to come, and what became of one
"""
