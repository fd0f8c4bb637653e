"""One page for a person who reads no CSV: tables, curves, a slider of the boundary and the images, in one HTML file."""
