"""How true a network and its maps are.

`proof` of its conversion; `compare`, its plain map with real crops; `ways` to make a map and their cost.
"""
