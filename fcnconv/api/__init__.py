"""The Python interface, which the commands use too.

`loading.load` opens a `classifier.Classifier`, which classifies images or makes a `maps.ScoreMap` of them.
`locating` finds the regions of classes in an image.
"""
