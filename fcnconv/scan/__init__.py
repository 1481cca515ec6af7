"""Turning a source and a network's run into blocks of logits.

- `blocks` scans a grid of windows.
- `tiling` chooses how a grid is cut so that it fits in memory, and `stages` runs a network stage by stage.
- `multiscale` joins the maps of several scales.
- `crops` scores single windows, and `anchors` corrects a dense map with their scores.
- `roi` finds the windows to scan: the region of interest.
- `plan` decides how an image is scanned and estimates the cost, and `execute` and `stream` follow the plan.
"""
