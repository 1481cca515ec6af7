"""Maps as pictures: `draw` puts the colours over the photo, `colours` makes them, `legend` explains them."""
