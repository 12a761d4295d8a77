import unittest
from decimal import Decimal

from timesheet import invoice

SHEET = """
2026-03-02 site-survey 1h10m   # billed as 1h15m
2026-03-02 report 1h50m
2026-03-03 site-survey 0:40
"""


class Invoicing(unittest.TestCase):
    def test_an_invoice_adds_up(self):
        lines = invoice.items(invoice.read(SHEET.splitlines()), Decimal("80"))
        self.assertEqual(
            [(one.project, one.minutes) for one in lines], [("site-survey", 120), ("report", 120)]
        )
        self.assertEqual(invoice.total(lines), Decimal("320.00"))

    def test_a_bad_line_is_named(self):
        with self.assertRaisesRegex(ValueError, "line 2"):
            invoice.read(["2026-03-02 report 1h", "2026-03-02 report"])
