"""Maps as pictures: `draw` lays the colours over the photo, `colours` makes them, `legend` names them."""
