"""Is there a secret in these bytes? Pure, total, and in time that grows with the bytes and nothing else.

Read `formats` (what tokens look like), `known` (values that are known word by word), `shapes` (what encoded text looks like),
`decoders` (how it is undone), then `scanner`, which puts them together, and `windows`, by which it takes long texts. `unpack`
undoes compression; `hiding` hides a known value in what comes back.
"""
