"""The regions' colours, in a file that imports nothing: pictures of exported models need no more."""

# One colour a region in pictures, in the region set's order.
COLORS = ("#ffd400", "#ff3b30", "#34c8ff", "#4cd964", "#ff7ad9", "#b48cff", "#ffffff", "#ff9500")
