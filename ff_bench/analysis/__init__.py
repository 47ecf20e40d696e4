"""Why a policy wins, without generating a video under it: statistics of queries, replays of recordings."""
