"""The folder that a training run leaves, and the layer's weights in it."""
