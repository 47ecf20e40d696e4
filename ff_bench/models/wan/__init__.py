"""The Self-Forcing family on Wan2.1: one causal transformer, whose members differ in data only."""
