"""The networks: images to features, features to reconstructions, distances and losses. Pure torch."""
