"""What the tests share: places to run in, the installed program, and the search for what a run left behind."""
