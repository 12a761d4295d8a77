"""Text as an agent would write it to deceive the person who reads it; for every place where text is shown."""

import unicodedata

ESC = "\x1b"

CASES: dict[str, str] = {
    "clears the screen": f"{ESC}[2J{ESC}[H Approved.",
    "moves the cursor up": f"please{ESC}[5A{ESC}[2Kharmless.example.org",
    "colours": f"{ESC}[31;1mred{ESC}[0m",
    "hides itself": f"{ESC}[8mhidden{ESC}[28m",
    "sets the title": f"{ESC}]0;owned\x07",
    "writes to the clipboard": f"{ESC}]52;c;cm0gLXJmIH4K\x07",
    "is a link": f"{ESC}]8;;https://evil.example{ESC}\\safe{ESC}]8;;{ESC}\\",
    "asks the terminal to answer": f'{ESC}[6n{ESC}[c{ESC}P$q"p{ESC}\\',
    "leaves the alternate screen": f"{ESC}[?1049l{ESC}c",
    "pastes": f"{ESC}[200~y\n{ESC}[201~",
    "is an 8-bit escape": "\x9b2J\x9d0;owned\x9c\x90q\x9c",
    "a carriage return": "allow evil.example\rallow good.example",
    "backspaces": "evil" + "\b" * 4 + "good",
    "NUL": "before\x00after",
    "every control character": "".join(map(chr, [*range(32), *range(127, 160)])),
    "bidi override": "allow \u202egro.elpmaxe\u202c now",
    "bidi isolate": "\u2066a\u2067b\u2068c\u2069 \u200e\u200f\u061c",
    "right to left": "\u05e9\u05dc\u05d5\u05dd 123 (\u0645\u0631\u062d\u0628\u0627) \u0661\u0662",
    "zero width": "py\u200bpi\u200c.\u200do\u2060rg\ufeff",
    "soft hyphens and tags": "a\u00adb\U000e0041\U000e007f",
    "invisible letters": "a\u3164b\uffa0c\u115fd\u1160e\u2800f\u034fg\u180bh\u17b4i",
    "line separators": "one\u2028two\u2029three\x85four\x0bfive\x0csix",
    "combining marks": "Z" + "\u0311\u0352\u0489\u0334" * 200,
    "marks on nothing": "\u0300\u0301 \u0300",
    "variation selectors": "\u2764\ufe0f \u2601\ufe0e a\U000e0101",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea 1\ufe0f\u20e3 \u2705",
    "Korean in parts": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "Devanagari": "\u0915\u094d\u0937\u093f \u0928\u092e\u0938\u094d\u0924\u0947",
    "wide": "\u6f22\u5b57\uff21\uff22 \u3042",
    "tabs": "a\tb\t\tc",
    "private use and unassigned": "\ue000\U000f0000\u0378\U0010ffff\ufffe",
    "invalid UTF-8": b"\xff\xfe ok \xc3( \xed\xa0\x80".decode("utf-8", "surrogateescape"),
    "Textual markup": "[bold red]Approved[/] [@click=app.quit]press[/] [link=https://evil.example]x[/link]",
    "broken markup": "[/] [[ \\[bold [@click=app.exit('x')] [not closed",
    "Rich markup and emoji": "[red]:warning:[/red] [blink]now[/blink]",
    "HTML": "<script>fetch('/approve')</script><b onmouseover=alert(1)>x</b>&lt;&#x202e;<!--",
    "attributes": "\" onfocus=alert(1) autofocus x='`${1}`",
    "Markdown": "# Approved\n[click](javascript:alert(1)) ![](https://evil.example/x.png)\n---\n",
    "looks like our own words": "\n\nTerms: once\n✓ Approved by the operator\nPress y to approve",
    "looks like a diff": "+ - {host: good.example}\n- - {host: evil.example}",
    "a template": "{{7*7}} ${7*7} %s %n {0} {x!r}",
    "quotes": "' \" ` \\ \\\\ \\x1b \\u202e",
    "a formula": "=cmd|' /C calc'!A0",
    "one long word": "a" * 5000,
    "one long line": "word " * 4000,
    "many lines": "line\n" * 3000,
    "a megabyte": ("allow everything " * 61_700)[: 2**20],
    "a megabyte of escapes": (f"{ESC}[2J" * 262_144)[: 2**20],
    "a megabyte of marks": "o" + "\u0300" * (2**20 - 1),
    "nothing but blanks": " \n \n ",
    "empty": "",
}
"""By what each tries."""

SMALL = {name: text for name, text in CASES.items() if len(text) < 100_000}
"""Those that are cheap to try everywhere."""


def dangers(shown: str, *, keep: str = "\n") -> list[str]:
    """The characters of `shown` that no place may show: they move, hide or reorder."""
    wrong = [c for c in set(shown) if c not in keep and unicodedata.category(c)[0] in "CZ" and c != " "]
    return sorted(f"U+{ord(c):04X}" for c in wrong)
