"""The accuracy of a network and its maps.

`compare` proves a conversion and compares the dense map with crops, and `ways` measures the accuracy and the
cost of several ways to make a map.
"""
