import unittest

from timesheet import duration


class Parsing(unittest.TestCase):
    def test_hours_and_minutes(self):
        for text, minutes in {"2h": 120, "45m": 45, "1h30m": 90, "1:30": 90, "0:05": 5}.items():
            self.assertEqual(duration.parse(text), minutes)

    def test_what_is_no_duration(self):
        for text in ("", "soon", "1:75", "h", "-1h"):
            with self.subTest(text), self.assertRaises(ValueError):
                duration.parse(text)


class Billing(unittest.TestCase):
    def test_a_started_quarter_counts_whole(self):
        self.assertEqual(duration.billable(1), 15)
        self.assertEqual(duration.billable(61), 75)

    def test_a_full_quarter_is_billed_as_it_is(self):
        self.assertEqual(duration.billable(15), 15)
        self.assertEqual(duration.billable(60), 60)
        self.assertEqual(duration.billable(0), 0)


class Showing(unittest.TestCase):
    def test_hours_and_minutes(self):
        self.assertEqual([duration.show(one) for one in (5, 60, 65)], ["5m", "1h00m", "1h05m"])
