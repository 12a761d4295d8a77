"""The keys, all of them."""

TEXT = """\
What waits
  a          approve: shows once more what that is, and asks for y
  r          reject, with a reason that the agent is told
  e          edit the routes; the change is worked out again and shown
  x          drop the edit again
  1 2 3 4    terms: once, 30 minutes, this bottle, the bottle's file
  space      mark; a, r and 1 to 4 are then about all that is marked
  *          mark all, or none        Esc   take the marks away
  f          fold the same asks of several bottles into one, or not

Looking around
  ↑ ↓ j k    the list (PgUp, PgDn, Home, End too)
  d u        scroll what is selected; Tab moves into it
  g          grants that are in force, and withdrawing them (w)
  h          history: what was decided, and what became of it
  ?          this text               q     leave

[ ]  not marked     [x]  marked     …  is being decided
!    has a warning, or can't be approved as it is
3x   three bottles ask for the same

A key that decides does nothing while what it is about has been on
the screen for less than half a second. The agent's words stand last
and behind a bar: nobody has checked them. What could deceive in them
(escapes, invisible letters, letters that run from right to left) is
shown as \\x1b or \\u202e."""
