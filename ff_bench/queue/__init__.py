"""Work that waits in one line and is done by processes side by side, or by this process alone.

`task` is a piece of work, `line` says which comes next, `worker` is a process, `crew` runs a line on workers,
`slots` says how many there are and what each computes on. Nothing here knows of videos.
"""
