"""The embedded model: procedural worlds, a small video diffusion transformer, its weights and training."""
