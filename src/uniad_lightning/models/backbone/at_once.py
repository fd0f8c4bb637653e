"""How many pixels a CPU inspects at once; without torch, for engines that run without it."""

# On a CPU, activations of more images than these pixels leave its caches and its allocator's reach: half the speed.
PIXELS_AT_ONCE = 4 * 224 * 224
