"""Whether the engine answers as the training's model does."""
