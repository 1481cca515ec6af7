"""Turning a source and a network's run into blocks of logits.

`blocks` scans a grid of windows; `tiles` chooses how it is cut to fit in memory, `parts` runs a network piece
by piece; `joins` makes one map of several scales, `crops` scores real windows, by which `anchors` corrects
a dense map; `estimate` tells the cost.
"""
