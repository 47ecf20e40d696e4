"""One policy against the others: properties, replay, videos, and one page with one sentence."""
