"""Whether the images that come are still like the good ones of the calibration."""
