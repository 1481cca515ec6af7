"""How true a network and its maps are: the `proof` of its conversion, how to `compare` its plain map with crops,
and `ways` to make a map, with what each costs and gives on a user's own images.
"""
