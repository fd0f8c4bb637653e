"""The boundary between good and defective, set on images that were not trained on."""
