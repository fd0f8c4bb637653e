"""One image: decoding, resizing, tiles, augmentation."""
