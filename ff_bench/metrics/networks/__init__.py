"""Networks that scores rest on: one file a network, from the original weight file to numbers per frame.

Each file holds a loader of the published weights and a `Signal` (ff_bench/metrics/signals.py). Libraries are
imported inside the loaders: a library or weight file that is not here makes one signal unavailable, no more.
"""
